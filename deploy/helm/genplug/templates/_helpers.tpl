{{- define "genplug.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "genplug.fullname" -}}
{{- $name := include "genplug.name" . -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- .Values.fullnameOverride | default $full | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /*
genplug.poolName returns the name of a pool's objects: <fullname> for the default pool, <fullname>-<pool> for others.
Arguments: root, pool (its name).
*/ -}}
{{- define "genplug.poolName" -}}
{{- $full := include "genplug.fullname" .root -}}
{{- eq .pool "default" | ternary $full (printf "%s-%s" $full .pool) -}}
{{- end -}}

{{- define "genplug.selectorLabels" -}}
app.kubernetes.io/name: {{ include "genplug.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "genplug.labels" -}}
{{- $labels := include "genplug.selectorLabels" . | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $labels "app.kubernetes.io/component" "agent" -}}
{{- $_ := set $labels "app.kubernetes.io/part-of" "genplug" -}}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63) -}}
{{- /* Only the objects of a pool have the pool label: selectors depend on it. */ -}}
{{- merge $labels (omit (.Values.commonLabels | default dict) "genplug.io/pool") | toYaml -}}
{{- end -}}

{{- define "genplug.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "genplug.fullname" .) "default") -}}
{{- end -}}

{{- define "genplug.image" -}}
{{- $name := .Values.image.repository -}}
{{- with (.Values.global | default dict).imageRegistry -}}
{{- /* As in container runtimes, the first part is a registry if it contains a dot or a port or is localhost. */ -}}
{{- $name = printf "%s/%s" (trimSuffix "/" .) (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $name "") -}}
{{- end -}}
{{- with .Values.image.digest -}}
{{- printf "%s@%s" $name . -}}
{{- else -}}
{{- printf "%s:%s" $name (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- /*
genplug.configMap returns the name of the ConfigMap that the agents of a pool read.
Arguments: root, pool (its name), settings (its merged settings).
*/ -}}
{{- define "genplug.configMap" -}}
{{- .settings.config.existingConfigMap | default (printf "%s-config" (include "genplug.poolName" .)) -}}
{{- end -}}

{{- define "genplug.configFile" -}}
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
{{- with .defaults }}
defaults:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if hasKey . "resources" }}
resources:
  {{- toYaml .resources | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "genplug.policyFile" -}}
apiVersion: genplug.io/v1alpha1
kind: DevicePluginPolicy
{{ toYaml . }}
{{- end -}}

{{- /* genplug.draDriver returns the name of the DRA driver. */ -}}
{{- define "genplug.draDriver" -}}
{{- ($.Values.dra | default dict).driverName | default "genplug.io" -}}
{{- end -}}

{{- /* genplug.draPools returns the pools whose agents may run the DRA driver, as a JSON list of names. */ -}}
{{- define "genplug.draPools" -}}
{{- $names := list -}}
{{- range $pool, $settings := include "genplug.pools" . | fromYaml -}}
{{- if $settings.dra.isOn -}}
{{- $names = append $names $pool -}}
{{- end -}}
{{- end -}}
{{- sortAlpha $names | toJson -}}
{{- end -}}

{{- /* genplug.draName returns the name of the cluster-scoped objects for DRA, which includes the release's namespace. */ -}}
{{- define "genplug.draName" -}}
{{- printf "%s-dra.%s" (include "genplug.fullname" .) .Release.Namespace -}}
{{- end -}}

{{- /*
genplug.deviceClassName returns the name of the DeviceClass of a resource: vendor.example/thing has thing.vendor.example.
genplug.allocation.device_class builds the same name.
*/ -}}
{{- define "genplug.deviceClassName" -}}
{{- $parts := splitn "/" 2 . -}}
{{- $labels := list -}}
{{- range $label := regexReplaceAll "[^-a-z0-9.]+" (printf "%s.%s" $parts._1 $parts._0 | lower) "-" | splitList "." -}}
{{- with trimAll "-" $label -}}
{{- $labels = append $labels . -}}
{{- end -}}
{{- end -}}
{{- join "." $labels -}}
{{- end -}}

{{- /*
genplug.deviceClasses returns the DeviceClasses of the resources that the values serve by DRA, as YAML: name ->
{extendedResource, resources}. Fails if two of them have the same name.
*/ -}}
{{- define "genplug.deviceClasses" -}}
{{- $settings := ($.Values.dra | default dict).deviceClasses | default dict -}}
{{- $resources := dict -}}
{{- $classes := dict -}}
{{- range include "genplug.pools" . | fromYaml -}}
{{- range $name, $served := .needs.classes -}}
{{- $_ := set $resources $name (concat (get $resources $name | default list) $served | uniq | sortAlpha) -}}
{{- end -}}
{{- end -}}
{{- if ne (toString $settings.create) "false" -}}
{{- range $name, $served := $resources -}}
{{- $class := get ($settings.names | default dict) $name | default (include "genplug.deviceClassName" $name) -}}
{{- with get $classes $class -}}
{{- fail (printf "\n\nThe DeviceClasses of %s and %s have the same name, %s. Set dra.deviceClasses.names to different names for them.\n" .extendedResource $name $class) -}}
{{- end -}}
{{- $_ := set $classes $class (dict "extendedResource" $name "resources" $served) -}}
{{- end -}}
{{- end -}}
{{- toYaml $classes -}}
{{- end -}}
