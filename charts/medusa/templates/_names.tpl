{{/* The labels of one part. Selectors use exactly these, and so they carry nothing that changes with a version. */}}
{{- define "medusa.labels" -}}
app.kubernetes.io/name: medusa
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component | quote }}
{{- end }}

{{/* Every pod here satisfies Pod Security "restricted". */}}
{{- define "medusa.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .uid }}
runAsGroup: {{ .uid }}
fsGroup: {{ .uid }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "medusa.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/*
What one setup run is for: the image, and the values it reads. The Job is named by it, because a Job's template cannot
change, and the server waits for exactly this revision. The Secret's contents are not in it: rotating a password must
not set a store up again.
*/}}
{{- define "medusa.setupRevision" -}}
{{- $inputs := dict "image" .Values.image.server "publicUrl" .Values.publicUrl "setup" .Values.setup "secretName" .Values.secretName -}}
{{- $inputs | toJson | sha256sum | trunc 16 -}}
{{- end }}

{{/* The environment that setup and server share. */}}
{{- define "medusa.environment" -}}
{{- range list "DATABASE_URL" "REDIS_URL" "JWT_SECRET" "COOKIE_SECRET" }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $.Values.secretName | quote }}, key: {{ . }}}}
{{- end }}
- name: PUBLIC_URL
  value: {{ .Values.publicUrl | quote }}
- name: SETUP_REVISION
  value: {{ include "medusa.setupRevision" . | quote }}
{{- end }}
