{{- /*
genplug.affinity returns the affinity of a pool's pods, as YAML. Each node belongs to exactly one pool: a pool requires one
of its label values, and the default pool requires that no pool has the node's value (NotIn also matches a node without the
label). Node selector terms are alternatives, so the requirement is added to each term of the operator's own affinity.
Arguments: root, pool (its name), pools (the result of genplug.pools).
*/ -}}
{{- define "genplug.affinity" -}}
{{- $affinity := deepCopy ((get .pools .pool).daemonset.affinity | default dict) -}}
{{- $values := (get .pools .pool).labelValues -}}
{{- $operator := "In" -}}
{{- if eq .pool "default" -}}
{{- $operator = "NotIn" -}}
{{- $values = list -}}
{{- range $name, $pool := omit .pools "default" -}}
{{- $values = concat $values $pool.labelValues -}}
{{- end -}}
{{- end -}}
{{- if $values -}}
{{- $requirement := dict "key" .root.Values.poolLabel "operator" $operator "values" (sortAlpha $values) -}}
{{- $node := $affinity.nodeAffinity | default dict -}}
{{- $required := $node.requiredDuringSchedulingIgnoredDuringExecution | default dict -}}
{{- $terms := list -}}
{{- range $term := $required.nodeSelectorTerms | default (list dict) -}}
{{- $terms = append $terms (merge (dict "matchExpressions" (append ($term.matchExpressions | default list) $requirement)) $term) -}}
{{- end -}}
{{- $_ := set $required "nodeSelectorTerms" $terms -}}
{{- $_ := set $node "requiredDuringSchedulingIgnoredDuringExecution" $required -}}
{{- $_ := set $affinity "nodeAffinity" $node -}}
{{- end -}}
{{- if $affinity -}}
{{- toYaml $affinity -}}
{{- end -}}
{{- end -}}
