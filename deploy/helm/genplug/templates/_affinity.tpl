{{- /*
genplug.affinity: the affinity of a pool's pods, so that exactly one pool has each node: a pool has the nodes with one of
its label values, the default pool those with none of all pools' (NotIn holds too where a node lacks the label). The
operator's terms are alternatives, so the requirement goes into each of them. Takes root, pool, pools.
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
