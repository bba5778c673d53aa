{{- /*
genplug.pools returns the enabled pools with their merged settings, as YAML: name -> {labelValues, config, policy,
daemonset, dra, needs}. `needs` is what the configuration needs: {syslog, privileged}, each true or absent; {dra}, the
list of resources that Dynamic Resource Allocation (DRA) serves; and {classes}, which maps the names of these resources
and of their aliases to lists of resources. `dra.isOn` is whether the agents may run the DRA driver. Fails if two pools
claim the same nodes, if no pool is enabled, or if genplug.checkConfig or genplug.checkDra finds a conflict.
*/ -}}
{{- define "genplug.pools" -}}
{{- $pools := dict -}}
{{- $claimed := dict -}}
{{- range $name := append (keys .Values.pools) "default" | uniq | sortAlpha -}}
{{- $own := get $.Values.pools $name | default dict -}}
{{- $exists := or (eq $name "default") (kindIs "map" (get $.Values.pools $name)) -}}
{{- if and $exists (ne (toString $own.enabled) "false") -}}
{{- $pool := dict "labelValues" (list $name) -}}
{{- include "genplug.merge" (dict "into" $pool "from" (pick $.Values "config" "policy" "daemonset")) -}}
{{- /* The other keys of `dra` apply to all pools. --reuse-values of a release without `dra` sets none of them. */ -}}
{{- $_ := set $pool "dra" (dict "enabled" ($.Values.dra | default dict).enabled) -}}
{{- include "genplug.merge" (dict "into" $pool "from" (omit $own "enabled")) -}}
{{- $_ := set $pool "policy" ($pool.policy | default dict) -}}
{{- /* null is kept in the configuration of a node: the agent removes the key when it merges the node's file. */ -}}
{{- $nodes := dict -}}
{{- range $level := list $.Values.config ($own.config | default dict) -}}
{{- range $node, $spec := $level.nodes -}}
{{- if kindIs "invalid" $spec -}}
{{- $_ := unset $nodes $node -}}
{{- else -}}
{{- include "genplug.merge" (dict "into" $nodes "from" (dict $node $spec) "keepNull" true) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $_ := set $pool.config "nodes" $nodes -}}
{{- $_ := set $pool "needs" (dict "dra" list "classes" dict) -}}
{{- include "genplug.checkConfig" (dict "pool" $name "settings" $pool "own" ($own.config | default dict) "common" $.Values.config) -}}
{{- if eq (toString $pool.daemonset.kernelLog) "always" -}}
{{- $_ := set $pool.needs "syslog" true -}}
{{- end -}}
{{- include "genplug.checkDra" (dict "root" $ "pool" $name "settings" $pool) -}}
{{- if ne $name "default" -}}
{{- range $value := $pool.labelValues -}}
{{- if hasKey $claimed $value -}}
{{- fail (printf "\n\npools.%s and pools.%s both claim the nodes with the label %s=%s. Only one agent can serve a node. Set different values in pools.<name>.labelValues (default: the pool's name), or set `enabled: false` for one of the pools.\n" (get $claimed $value) $name $.Values.poolLabel $value) -}}
{{- end -}}
{{- $_ := set $claimed $value $name -}}
{{- end -}}
{{- end -}}
{{- $_ := set $pools $name $pool -}}
{{- end -}}
{{- end -}}
{{- if not $pools -}}
{{- fail "\n\nEvery pool is disabled: expected at least one enabled pool. Set pools.default.enabled to true, or enable another pool.\n" -}}
{{- end -}}
{{- toYaml $pools -}}
{{- end -}}

{{- /*
genplug.checkDra sets `dra.isOn` of a pool, and the directory for CDI files if the pool has none: DRA passes devices to
containers in CDI files only. Fails if the configuration needs DRA and the values or the cluster do not provide it.
Arguments: root, pool (its name), settings (its merged settings).
*/ -}}
{{- define "genplug.checkDra" -}}
{{- $dra := .settings.dra -}}
{{- $key := eq .pool "default" | ternary "dra.enabled" (printf "pools.%s.dra.enabled" .pool) -}}
{{- $enabled := toString ($dra.enabled | default "auto") -}}
{{- $resources := join ", " .settings.needs.dra -}}
{{- $_ := set $dra "isOn" (or (eq $enabled "always") (ne $resources "")) -}}
{{- if $dra.isOn -}}
{{- $version := .root.Capabilities.KubeVersion.Version -}}
{{- if not (semverCompare ">=1.34.0-0" $version) -}}
{{- $cause := empty $resources | ternary (printf "%s is always" $key) (printf "`serve: dra` is set for %s" $resources) -}}
{{- $fix := empty $resources | ternary (printf "Set %s to auto" $key) "Set `serve: devicePlugin` for these resources" -}}
{{- fail (printf "\n\nPool %s uses Dynamic Resource Allocation (DRA), because %s, but Kubernetes %s does not serve the API resource.k8s.io/v1: expected 1.34 or newer. %s, or upgrade the cluster first. If the cluster is newer and Helm has no access to it (helm template, GitOps tools), pass --kube-version.\n" .pool $cause $version $fix) -}}
{{- end -}}
{{- if not .settings.daemonset.cdiSpecDir -}}
{{- $_ := set .settings.daemonset "cdiSpecDir" "/var/run/cdi" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /*
genplug.checkConfig fails if a pool's configuration conflicts with the pool's other settings.
Arguments: pool (its name), settings (its merged settings), own and common (the configurations before the merge).
*/ -}}
{{- define "genplug.checkConfig" -}}
{{- $config := .settings.config -}}
{{- $prefix := eq .pool "default" | ternary "" (printf "pools.%s." .pool) -}}
{{- if $config.existingConfigMap -}}
{{- $level := .common -}}
{{- $key := "config" -}}
{{- if or .own.existingConfigMap .own.resources .own.defaults .own.nodes -}}
{{- $level = .own -}}
{{- $key = printf "pools.%s.config" .pool -}}
{{- end -}}
{{- if or $level.resources $level.defaults $level.nodes -}}
{{- fail (printf "\n\nThe agents of pool %s read the ConfigMap %s, but %s also sets defaults, resources or nodes. Move these into the ConfigMap, or set %s.existingConfigMap to \"\".\n" .pool $config.existingConfigMap $key $key) -}}
{{- end -}}
{{- else -}}
{{- $resources := $config.resources -}}
{{- range $config.nodes -}}
{{- $resources = or $resources .resources -}}
{{- end -}}
{{- if not $resources -}}
{{- fail (printf "\n\nPool %s has no resources: its agents would not advertise any device. Describe which devices become which resource, in a values file that you pass with -f:\n\nconfig:\n  resources:\n    devices.example.com/fuse:          # the resource that a pod requests\n      devices: [{glob: /dev/fuse}]     # the device nodes that it provides\n      tokens: 100                      # up to 100 containers share them\n\nAlternatively, set config.existingConfigMap to the name of your own ConfigMap, or disable the pool with pools.%s.enabled=false. Examples: https://github.com/genplug/genplug/tree/main/examples/configs\n" .pool .pool) -}}
{{- end -}}
{{- $context := dict "pool" .pool "daemonset" .settings.daemonset "policy" .settings.policy "dra" .settings.dra "prefix" $prefix "needs" .settings.needs -}}
{{- include "genplug.checkRequirements" (merge (dict "config" $config) $context) -}}
{{- range $node, $spec := $config.nodes -}}
{{- $merged := dict -}}
{{- include "genplug.merge" (dict "into" $merged "from" (pick $config "defaults" "resources")) -}}
{{- include "genplug.merge" (dict "into" $merged "from" $spec) -}}
{{- include "genplug.checkRequirements" (merge (dict "config" $merged "node" $node) $context) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /*
genplug.checkRequirements fails if a configuration requires a setting of the pod or of the policy that is off, and records
in `needs` what the pod needs. genplug.config.chart_requirements makes the same checks of the pod.
Arguments: pool (its name), node (its name, or unset for all nodes of the pool), prefix (of the pool's values, for example
"pools.lab."), config, daemonset, policy, dra, needs.
*/ -}}
{{- define "genplug.checkRequirements" -}}
{{- $ := . -}}
{{- $on := printf "in pool %s" .pool -}}
{{- with .node -}}
{{- $on = printf "on node %s of pool %s" . $.pool -}}
{{- end -}}
{{- range $resource, $spec := .config.resources -}}
{{- $all := dict -}}
{{- include "genplug.merge" (dict "into" $all "from" ($.config.defaults | default dict)) -}}
{{- include "genplug.merge" (dict "into" $all "from" ($spec | default dict)) -}}
{{- range $name := prepend ($all.aliases | default list) $resource -}}
{{- include "genplug.checkName" (dict "name" $name "what" (printf "\n\nResource %s %s" $name $on) "prefix" $.prefix "policy" $.policy) -}}
{{- end -}}
{{- if eq (toString $all.serve) "dra" -}}
{{- if eq (toString $.dra.enabled) "never" -}}
{{- fail (printf "\n\nResource %s %s has `serve: dra`, which needs a driver of Dynamic Resource Allocation (DRA), but %sdra.enabled is never. Set %sdra.enabled to auto, or set `serve: devicePlugin`.\n" $resource $on $.prefix $.prefix) -}}
{{- end -}}
{{- $_ := set $.needs "dra" (append $.needs.dra $resource | uniq | sortAlpha) -}}
{{- range $name := prepend ($all.aliases | default list) $resource -}}
{{- /* The names of a resource with a template are known on the nodes only. */ -}}
{{- if not (contains "$" (print $name $resource)) -}}
{{- $_ := set $.needs.classes $name (append (get $.needs.classes $name | default list) $resource | uniq | sortAlpha) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $all.devices -}}
{{- fail (printf "\n\nResource %s %s has no devices. Set the device nodes that it provides, for example `devices: [{glob: /dev/ttyUSB*}]`. To remove the resource, set it to null.\n" $resource $on) -}}
{{- end -}}
{{- range $index, $probe := dig "health" "probes" list $all -}}
{{- $what := printf "\n\nResource %s %s: health.probes[%d]" $resource $on $index -}}
{{- if and (hasKey $probe "open") (not $.daemonset.privileged) -}}
{{- fail (printf "%s opens device nodes, which only a privileged container may do. Set %sdaemonset.privileged to true, or remove the probe.\n" $what $.prefix) -}}
{{- end -}}
{{- if and (hasKey $probe "open") (not (dig "openProbe" false $.policy)) -}}
{{- fail (printf "%s opens device nodes, which the policy does not allow. Set %spolicy.openProbe to true, or remove the probe.\n" $what $.prefix) -}}
{{- end -}}
{{- if hasKey $probe "open" -}}
{{- $_ := set $.needs "privileged" true -}}
{{- end -}}
{{- if hasKey $probe "kernelLog" -}}
{{- $_ := set $.needs "syslog" true -}}
{{- if and (eq (toString $.daemonset.kernelLog) "never") (not $.daemonset.privileged) -}}
{{- fail (printf "%s reads the kernel log, which needs the capability SYSLOG. Set %sdaemonset.kernelLog to auto, or remove the probe.\n" $what $.prefix) -}}
{{- end -}}
{{- end -}}
{{- $file := $probe.file | default dict -}}
{{- range $key := list "path" "equalsFile" "minFile" "maxFile" -}}
{{- include "genplug.checkVisible" (dict "path" (get $file $key) "what" (printf "%s.file reads" $what) "root" $) -}}
{{- end -}}
{{- include "genplug.checkVisible" (dict "path" (get ($probe.unixSocket | default dict) "path") "what" (printf "%s.unixSocket connects to" $what) "root" $) -}}
{{- if and (hasKey $probe "unixSocket") (not (dig "unixSocket" "allow" list $.policy)) -}}
{{- fail (printf "%s connects to a socket, but the policy allows no sockets. Add the socket to %spolicy.unixSocket.allow, or remove the probe.\n" $what $.prefix) -}}
{{- end -}}
{{- if hasKey $probe "exec" -}}
{{- include "genplug.checkExec" (dict "what" (printf "%s.exec" $what) "prefix" $.prefix "policy" $.policy) -}}
{{- end -}}
{{- end -}}
{{- if $all.preStart -}}
{{- include "genplug.checkExec" (dict "what" (printf "\n\nResource %s %s: preStart" $resource $on) "prefix" $.prefix "policy" $.policy) -}}
{{- end -}}
{{- $allocate := $all.allocate | default dict -}}
{{- if and (eq (toString $allocate.inject) "cdi") (not $.daemonset.cdiSpecDir) -}}
{{- fail (printf "\n\nResource %s %s: `inject: cdi` writes CDI files, but no directory is mounted for them. Set %sdaemonset.cdiSpecDir to a directory that the container runtime reads, usually /var/run/cdi.\n" $resource $on $.prefix) -}}
{{- end -}}
{{- if and $allocate.cdiDevices (not $.daemonset.cdiSearchDirs) -}}
{{- fail (printf "\n\nResource %s %s: `cdiDevices` names CDI devices, but no directory of CDI files is mounted into the agent: every device would be unhealthy. Set %sdaemonset.cdiSearchDirs to the directories that the container runtime reads, usually [/etc/cdi, /var/run/cdi].\n" $resource $on $.prefix) -}}
{{- end -}}
{{- range $key := list "annotations" "cdiDevices" -}}
{{- $rule := ternary "cdi" $key (eq $key "cdiDevices") -}}
{{- if and (index $allocate $key) (not (dig $rule "allow" list $.policy)) -}}
{{- fail (printf "\n\nResource %s %s: the policy allows no names for allocate.%s. Add them to %spolicy.%s.allow.\n" $resource $on $key $.prefix $rule) -}}
{{- end -}}
{{- end -}}
{{- range $index, $source := $all.devices -}}
{{- $what := printf "\n\nResource %s %s: devices[%d]" $resource $on $index -}}
{{- range $glob := kindIs "slice" $source.glob | ternary $source.glob (list $source.glob) -}}
{{- include "genplug.checkVisible" (dict "path" $glob "what" (printf "%s selects" $what) "root" $) -}}
{{- end -}}
{{- range $key := list "nodes" "with" -}}
{{- range $node := get $source $key | default list -}}
{{- if kindIs "map" $node -}}
{{- $node = $node.path -}}
{{- end -}}
{{- include "genplug.checkVisible" (dict "path" $node "what" (printf "%s.%s selects" $what $key) "root" $) -}}
{{- end -}}
{{- end -}}
{{- range $name, $attribute := $source.attributes -}}
{{- $paths := get ($attribute | default dict) "path" -}}
{{- range $path := kindIs "slice" $paths | ternary $paths (list $paths) -}}
{{- include "genplug.checkVisible" (dict "path" $path "what" (printf "%s: the attribute %s reads" $what $name) "root" $) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $mount := $allocate.mounts -}}
{{- $what := printf "\n\nResource %s %s: allocate.mounts contains the host path %s" $resource $on $mount.hostPath -}}
{{- include "genplug.checkVisible" (dict "path" $mount.hostPath "what" (printf "\n\nResource %s %s: allocate.mounts contains the host path" $resource $on) "root" $) -}}
{{- $mounts := $.policy.mounts | default dict -}}
{{- if not (or $mounts.allow $mounts.writable) -}}
{{- fail (printf "%s, but the policy allows no mounts. Add the path to %spolicy.mounts.allow.\n" $what $.prefix) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /*
genplug.checkVisible fails if the pod does not mount a path of the host that the agent reads, or if the kernel hides the path
from it. The part of a template or glob before the first wildcard or reference decides.
Arguments: path (empty if there is none), what (the beginning of the message), root (the arguments of
genplug.checkRequirements).
*/ -}}
{{- define "genplug.checkVisible" -}}
{{- if .path -}}
{{- $root := .root -}}
{{- $path := .path -}}
{{- if regexMatch "^/sys/(class|devices/virtual)/kfd/" $path -}}
{{- $_ := set $root.needs "privileged" true -}}
{{- if not $root.daemonset.privileged -}}
{{- fail (printf "%s %s, which the kernel shows only to processes that may open the render node. Set %sdaemonset.privileged to true.\n" .what $path $root.prefix) -}}
{{- end -}}
{{- end -}}
{{- $literal := regexReplaceAll "[*?\\[{$].*$" $path "" -}}
{{- if ne $literal $path -}}
{{- $literal = regexReplaceAll "[^/]*$" $literal "" -}}
{{- end -}}
{{- $literal = trimAll "/" $literal | printf "/%s" -}}
{{- $visible := concat (list "/dev" "/sys" "/proc/driver" "/proc/devices" "/run/udev/data") ($root.daemonset.hostMounts | default list) ($root.daemonset.cdiSearchDirs | default list) (list ($root.daemonset.cdiSpecDir | default "/dev")) -}}
{{- range $mount := $root.daemonset.extraVolumeMounts -}}
{{- if hasPrefix "/host/" $mount.mountPath -}}
{{- $visible = append $visible (trimPrefix "/host" $mount.mountPath) -}}
{{- end -}}
{{- end -}}
{{- $isVisible := eq $literal "/" -}}
{{- range $directory := $visible -}}
{{- $isVisible = or $isVisible (hasPrefix (printf "%s/" (trimSuffix "/" $directory)) (printf "%s/" $literal)) -}}
{{- end -}}
{{- if not $isVisible -}}
{{- fail (printf "%s %s, and the pods do not mount %s of the host. Add the path, or a parent directory that exists on every node of the pool, to %sdaemonset.hostMounts.\n" .what $path $literal $root.prefix) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "genplug.checkExec" -}}
{{- if not (dig "exec" "allow" list .policy) -}}
{{- fail (printf "%s runs a program, but the policy allows no programs. Add the program to %spolicy.exec.allow, or remove it from the configuration.\n" .what .prefix) -}}
{{- end -}}
{{- end -}}

{{- /*
genplug.checkName fails if the policy does not allow a resource name. It reads the globs of the policy as regular
expressions; genplug checks globs with number ranges and with `]` in brackets, and templated names, on the node.
Arguments: name, what (the beginning of the message), prefix, policy.
*/ -}}
{{- define "genplug.checkName" -}}
{{- if and (hasKey .policy "resources") (not (contains "$" .name)) -}}
{{- $name := .name -}}
{{- $isAllowed := false -}}
{{- range $glob := .policy.resources -}}
{{- $regex := regexQuoteMeta $glob | replace "\\*" ".*" | replace "\\?" "." | replace "\\[!" "[^" | replace "\\[" "[" | replace "\\]" "]" | replace "\\{" "(?:" | replace "\\}" ")" | replace "," "|" -}}
{{- $isAllowed = or $isAllowed (regexMatch "\\.\\.|\\[!?\\]" $glob) (regexMatch (printf "^(?:%s)$" $regex) $name) -}}
{{- end -}}
{{- if not $isAllowed -}}
{{- fail (printf "%s: the policy does not allow this name. Add it to %spolicy.resources, or remove the resource.\n" .what .prefix) -}}
{{- end -}}
{{- end -}}
{{- end -}}
