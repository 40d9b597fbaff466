{{/* Prefix of all names: 63 characters are left for the longest, that of the Service of the metrics. */}}
{{- define "svcdiag.fullname" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $name = ternary .Release.Name (printf "%s-svcdiag" .Release.Name) (contains "svcdiag" .Release.Name) -}}
{{- end -}}
{{- $name | trunc 44 | trimSuffix "-" -}}
{{- end -}}

{{- define "svcdiag.agentNamespace" -}}
{{- .Values.agent.namespace | default .Release.Namespace -}}
{{- end -}}

{{- define "svcdiag.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default (printf "v%s" .Chart.AppVersion)) -}}
{{- end -}}
{{- end -}}

{{/* Labels of every object. */}}
{{- define "svcdiag.labels" -}}
app.kubernetes.io/name: svcdiag
app.kubernetes.io/part-of: svcdiag
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The controller's Pods are found by these; they cannot be changed later. */}}
{{- define "svcdiag.controllerSelector" -}}
app.kubernetes.io/name: svcdiag
app.kubernetes.io/component: controller
{{- end -}}

{{- define "svcdiag.controllerLabels" -}}
{{ include "svcdiag.labels" . }}
app.kubernetes.io/component: controller
{{- end -}}

{{/* The agents' Pods are found by these; messages of svcdiag name the component. */}}
{{- define "svcdiag.agentSelector" -}}
app.kubernetes.io/name: svcdiag
app.kubernetes.io/component: svcdiag-agent
{{- end -}}

{{- define "svcdiag.agentLabels" -}}
{{ include "svcdiag.labels" . }}
app.kubernetes.io/component: svcdiag-agent
{{- end -}}

{{/* Labels of Pods, besides the selector: without the version of the chart, which need not restart them. */}}
{{- define "svcdiag.podLabels" -}}
app.kubernetes.io/part-of: svcdiag
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* The namespace that --create-namespace of Helm may have made before outlives the release, as any that Helm makes. */}}
{{- define "svcdiag.keepNamespaceOfRelease" -}}
{{- if eq .namespace .root.Release.Namespace }}
  annotations:
    helm.sh/resource-policy: keep
{{- end }}
{{- end -}}

{{- define "svcdiag.pullSecrets" -}}
{{- with .Values.image.pullSecrets -}}
imagePullSecrets:
{{ toYaml . }}
{{- end -}}
{{- end -}}

{{- define "svcdiag.controllerUser" -}}
system:serviceaccount:{{ .Values.controller.namespace }}:{{ include "svcdiag.fullname" . }}-controller
{{- end -}}

{{- define "svcdiag.agentUser" -}}
system:serviceaccount:{{ include "svcdiag.agentNamespace" . }}:{{ include "svcdiag.fullname" . }}-agent
{{- end -}}

{{- define "svcdiag.logVariable" -}}
{{- with .Values.log -}}
- name: SVCDIAG_LOG
  value: {{ . | quote }}
{{- end }}
{{- if eq .Values.logFormat "json" }}
- name: SVCDIAG_LOG_FORMAT
  value: json
{{- end -}}
{{- end -}}

{{/* Flags with numbers, of those values that are set; 0 is set as well. Large numbers are not written as 1e+06. */}}
{{- define "svcdiag.numbers" -}}
{{- $lines := list -}}
{{- range $value, $flag := .flags -}}
{{- $number := index $.of $value -}}
{{- if not (kindIs "invalid" $number) -}}
{{- $lines = append $lines (printf "- --%s=%d" $flag (int64 $number)) -}}
{{- end -}}
{{- end -}}
{{- join "\n" $lines -}}
{{- end -}}
