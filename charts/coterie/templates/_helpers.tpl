{{- define "coterie.name" -}}
{{- default "coterie-operator" .Values.nameOverride | trunc 53 | trimSuffix "-" -}}
{{- end -}}

{{- define "coterie.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" -}}
{{- else if contains .Release.Name (include "coterie.name" .) -}}
{{- include "coterie.name" . -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "coterie.name" .) | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "coterie.selector" -}}
app.kubernetes.io/name: coterie
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "coterie.labels" -}}
{{ include "coterie.selector" . }}
app.kubernetes.io/part-of: coterie
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "coterie.serviceAccount" -}}
{{- default (include "coterie.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "coterie.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{- define "coterie.sidecarImage" -}}
{{- if .Values.sidecar.image.repository -}}
{{- printf "%s:%s" .Values.sidecar.image.repository (default (default .Chart.AppVersion .Values.image.tag) .Values.sidecar.image.tag) -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default (default .Chart.AppVersion .Values.image.tag) .Values.sidecar.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Cluster-wide, or in the one namespace that is watched. */}}
{{- define "coterie.roleKind" -}}
{{- if .Values.watchNamespace }}Role{{ else }}ClusterRole{{ end -}}
{{- end -}}
