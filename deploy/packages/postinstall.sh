#!/bin/sh
# Arguments: dpkg passes "configure" and the previous version, rpm the number of installed versions.
set -e
# The service cannot write to /usr, so the bytecode is written now.
python=$(sed -n '1s/^#!\([^ ]*\).*/\1/p' /usr/bin/genplug)
"$python" -m compileall -q -j 0 /usr/lib/genplug >/dev/null
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  # An upgrade restarts a service that runs. The service is not enabled here: it needs a configuration first.
  systemctl try-restart genplug.service
fi
if [ -z "$(ls -A /etc/genplug 2>/dev/null)" ]; then
  echo "genplug: write a configuration to /etc/genplug (see 'genplug init'), check it with 'genplug validate" \
    "/etc/genplug', and run 'systemctl enable --now genplug'"
fi
