"""The kubelet's side of the wall: protocol, sockets, registration, one endpoint with its generations per resource."""
