{{/* The labels of one part. Selectors use exactly these, and so they carry nothing that changes with a version. */}}
{{- define "woocommerce.labels" -}}
app.kubernetes.io/name: woocommerce
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component | quote }}
{{- end }}

{{/* Every pod here satisfies Pod Security "restricted". */}}
{{- define "woocommerce.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .uid }}
runAsGroup: {{ .uid }}
fsGroup: {{ .uid }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "woocommerce.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/*
What one setup run is for: the image, and the values it reads. The Job is named by it, because a Job's template cannot
change, and the server waits for exactly this revision. The Secret's contents are not in it: rotating a password must
not set a store up again.
*/}}
{{- define "woocommerce.setupRevision" -}}
{{- $inputs := dict "image" .Values.image.server "publicUrl" .Values.publicUrl "title" .Values.title "setup" .Values.setup "secretName" .Values.secretName -}}
{{- $inputs | toJson | sha256sum | trunc 16 -}}
{{- end }}

{{/* The environment that setup, server and scheduled work share: without it WordPress' settings refuse to load. */}}
{{- define "woocommerce.environment" -}}
- name: PUBLIC_URL
  value: {{ .Values.publicUrl | quote }}
- name: SETUP_REVISION
  value: {{ include "woocommerce.setupRevision" . | quote }}
- name: DB_HOST
  value: mariadb
{{- range list "MARIADB_PASSWORD" "AUTH_KEY" "SECURE_AUTH_KEY" "LOGGED_IN_KEY" "NONCE_KEY" "AUTH_SALT" "SECURE_AUTH_SALT" "LOGGED_IN_SALT" "NONCE_SALT" }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $.Values.secretName | quote }}, key: {{ . }}}}
{{- end }}
{{- end }}
