{{- /*
genplug.merge merges the map `from` into the map `into`, in place. Maps are merged key by key; every other value replaces
the previous one, including false, 0, "" and []. null removes the key, or is stored if keepNull is true. (Sprig's
mergeOverwrite always stores null.)
Arguments: into, from, keepNull (default false).
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
