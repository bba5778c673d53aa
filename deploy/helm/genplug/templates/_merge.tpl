{{- /*
genplug.merge merges the map `from` into the map `into`, in place: maps key by key, all else replaces, also by false, 0,
"" and []; null deletes, or replaces where keepNull is true. (mergeOverwrite would let null stand as a value.)
*/ -}}
{{- define "genplug.merge" -}}
{{- $keepNull := .keepNull | default false -}}
{{- $into := .into -}}
{{- range $key, $value := .from -}}
{{- if and (kindIs "invalid" $value) (not $keepNull) -}}
{{- $_ := unset $into $key -}}
{{- else if kindIs "map" $value -}}
{{- if not (kindIs "map" (get $into $key)) -}}
{{- $_ := set $into $key dict -}}
{{- end -}}
{{- include "genplug.merge" (dict "into" (get $into $key) "from" $value "keepNull" $keepNull) -}}
{{- else -}}
{{- $_ := set $into $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}
