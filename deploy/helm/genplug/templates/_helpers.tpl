{{- define "genplug.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "genplug.fullname" -}}
{{- $name := include "genplug.name" . -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- .Values.fullnameOverride | default $full | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* genplug.poolName: <fullname> of the default pool's objects, <fullname>-<pool> of the others'; takes root, pool. */ -}}
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
{{- /* The pool is a label that an object has or has not. */ -}}
{{- merge $labels (omit (.Values.commonLabels | default dict) "genplug.io/pool") | toYaml -}}
{{- end -}}

{{- define "genplug.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "genplug.fullname" .) "default") -}}
{{- end -}}

{{- define "genplug.image" -}}
{{- $name := .Values.image.repository -}}
{{- with (.Values.global | default dict).imageRegistry -}}
{{- /* As a container runtime reads it: a first part with a dot or a port, or localhost, is a registry. */ -}}
{{- $name = printf "%s/%s" (trimSuffix "/" .) (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $name "") -}}
{{- end -}}
{{- with .Values.image.digest -}}
{{- printf "%s@%s" $name . -}}
{{- else -}}
{{- printf "%s:%s" $name (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- /* genplug.configMap: the name of the ConfigMap that a pool's agents read; takes root, pool, settings. */ -}}
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
