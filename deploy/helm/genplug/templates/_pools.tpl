{{- /*
genplug.pools: what each enabled pool is when everything is merged, as YAML: name -> {labelValues, config, policy,
daemonset}. Refuses what would not work on a node.
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
{{- include "genplug.merge" (dict "into" $pool "from" (omit $own "enabled")) -}}
{{- $_ := set $pool "policy" ($pool.policy | default dict) -}}
{{- /* What is null for a node is for the agent to delete, over whatever the pool has. */ -}}
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
{{- include "genplug.checkConfig" (dict "pool" $name "settings" $pool "own" ($own.config | default dict) "common" $.Values.config) -}}
{{- if ne $name "default" -}}
{{- range $value := $pool.labelValues -}}
{{- if hasKey $claimed $value -}}
{{- fail (printf "\n\npools.%s and pools.%s both claim the nodes with the label %s=%s: of two agents on a node, the second waits for ever. Give each pool label values of its own (pools.<name>.labelValues; left out, it is the pool's name), or set `enabled: false` for one of the two.\n" (get $claimed $value) $name $.Values.poolLabel $value) -}}
{{- end -}}
{{- $_ := set $claimed $value $name -}}
{{- end -}}
{{- end -}}
{{- $_ := set $pools $name $pool -}}
{{- end -}}
{{- end -}}
{{- if not $pools -}}
{{- fail "\n\nEvery pool is disabled, so there is nothing to install. Set pools.default.enabled to true, or enable another pool.\n" -}}
{{- end -}}
{{- toYaml $pools -}}
{{- end -}}

{{- /*
genplug.checkConfig refuses a pool's configuration that could not work with the pool's other settings; takes pool,
settings, and the unmerged configurations own and common.
*/ -}}
{{- define "genplug.checkConfig" -}}
{{- $config := .settings.config -}}
{{- $where := eq .pool "default" | ternary "" (printf "pools.%s." .pool) -}}
{{- if $config.existingConfigMap -}}
{{- $level := .common -}}
{{- $key := "config" -}}
{{- if or .own.existingConfigMap .own.resources .own.defaults .own.nodes -}}
{{- $level = .own -}}
{{- $key = printf "pools.%s.config" .pool -}}
{{- end -}}
{{- if or $level.resources $level.defaults $level.nodes -}}
{{- fail (printf "\n\nThe nodes of pool %s read the ConfigMap %s, and %s has defaults, resources or nodes too: the agent reads one or the other. Move these into the ConfigMap, or set %s.existingConfigMap to \"\".\n" .pool $config.existingConfigMap $key $key) -}}
{{- end -}}
{{- else -}}
{{- $offers := $config.resources -}}
{{- range $config.nodes -}}
{{- $offers = or $offers .resources -}}
{{- end -}}
{{- if not $offers -}}
{{- fail (printf "\n\nPool %s has no resources, so its agents would offer nothing. Say which devices become which resource, in a values file that you give with -f:\n\nconfig:\n  resources:\n    devices.example.com/fuse:          # what a pod asks for\n      devices: [{glob: /dev/fuse}]     # which device nodes it stands for\n      tokens: 100                      # any hundred containers may share it\n\nOr name a ConfigMap of yours in config.existingConfigMap, or turn the pool off with pools.%s.enabled=false. More examples: https://github.com/genplug/genplug/tree/main/examples/configs\n" .pool .pool) -}}
{{- end -}}
{{- $context := dict "pool" .pool "daemonset" .settings.daemonset "policy" .settings.policy "where" $where -}}
{{- include "genplug.checkDemands" (merge (dict "config" $config) $context) -}}
{{- range $node, $spec := $config.nodes -}}
{{- $merged := dict -}}
{{- include "genplug.merge" (dict "into" $merged "from" (pick $config "defaults" "resources")) -}}
{{- include "genplug.merge" (dict "into" $merged "from" $spec) -}}
{{- include "genplug.checkDemands" (merge (dict "config" $merged "node" $node) $context) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /*
genplug.checkDemands refuses what a configuration needs of the pod or the policy and does not have; takes pool, node,
where (what stands before the keys of this pool), config, daemonset, policy.
*/ -}}
{{- define "genplug.checkDemands" -}}
{{- $ := . -}}
{{- $on := printf "in pool %s" .pool -}}
{{- with .node -}}
{{- $on = printf "on node %s of pool %s" . $.pool -}}
{{- end -}}
{{- range $resource, $spec := .config.resources -}}
{{- $all := dict -}}
{{- include "genplug.merge" (dict "into" $all "from" ($.config.defaults | default dict)) -}}
{{- include "genplug.merge" (dict "into" $all "from" ($spec | default dict)) -}}
{{- if not $all.devices -}}
{{- fail (printf "\n\nResource %s %s has no devices: say which device nodes it stands for, as in `devices: [{glob: /dev/ttyUSB*}]`. Null in place of the whole resource deletes it.\n" $resource $on) -}}
{{- end -}}
{{- range $index, $probe := dig "health" "probes" list $all -}}
{{- $what := printf "\n\nResource %s %s: health.probes[%d]" $resource $on $index -}}
{{- if and (hasKey $probe "open") (not $.daemonset.privileged) -}}
{{- fail (printf "%s opens device nodes, which a container may not do with devices of the host. Set %sdaemonset.privileged to true, or leave the probe out.\n" $what $.where) -}}
{{- end -}}
{{- if and (hasKey $probe "open") (not (dig "openProbe" false $.policy)) -}}
{{- fail (printf "%s opens device nodes, which the policy does not allow. Set %spolicy.openProbe to true, or leave the probe out.\n" $what $.where) -}}
{{- end -}}
{{- if and (hasKey $probe "kernelLog") (not $.daemonset.privileged) -}}
{{- fail (printf "%s reads the kernel's log, and only a privileged container can read /dev/kmsg. Set %sdaemonset.privileged to true, or leave the probe out.\n" $what $.where) -}}
{{- end -}}
{{- if hasKey $probe "exec" -}}
{{- include "genplug.checkExec" (dict "what" (printf "%s.exec" $what) "where" $.where "policy" $.policy) -}}
{{- end -}}
{{- end -}}
{{- if $all.preStart -}}
{{- include "genplug.checkExec" (dict "what" (printf "\n\nResource %s %s: preStart" $resource $on) "where" $.where "policy" $.policy) -}}
{{- end -}}
{{- $allocate := $all.allocate | default dict -}}
{{- if and (eq (toString $allocate.inject) "cdi") (not $.daemonset.cdiSpecDir) -}}
{{- fail (printf "\n\nResource %s %s: `inject: cdi` writes CDI files, and the agent has no folder for them. Set %sdaemonset.cdiSpecDir to one that the container runtime reads, mostly /var/run/cdi.\n" $resource $on $.where) -}}
{{- end -}}
{{- range $mount := $allocate.mounts -}}
{{- $seen := hasPrefix "$" $mount.hostPath -}}
{{- range $folder := concat (list "/dev" "/sys") ($.daemonset.hostMounts | default list) -}}
{{- $seen = or $seen (hasPrefix (printf "%s/" (trimSuffix "/" $folder)) (printf "%s/" $mount.hostPath)) -}}
{{- end -}}
{{- $what := printf "\n\nResource %s %s: allocate.mounts hands out %s of the host" $resource $on $mount.hostPath -}}
{{- if not $seen -}}
{{- fail (printf "%s, and the agent cannot look whether it is there: it would refuse every container. Add the path, or a folder above it that is on every node of the pool, to %sdaemonset.hostMounts.\n" $what $.where) -}}
{{- end -}}
{{- $mounts := $.policy.mounts | default dict -}}
{{- if not (or $mounts.allow $mounts.writable) -}}
{{- fail (printf "%s, and the policy allows no mounts. Name the path in %spolicy.mounts.allow.\n" $what $.where) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "genplug.checkExec" -}}
{{- if not (dig "exec" "allow" list .policy) -}}
{{- fail (printf "%s runs a program, and the policy allows none. Name the program in %spolicy.exec.allow, or leave it out.\n" .what .where) -}}
{{- end -}}
{{- end -}}
