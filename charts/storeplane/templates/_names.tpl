{{/* The labels of one part. Selectors use exactly these, and so they carry nothing that changes with a version. */}}
{{- define "storeplane.labels" -}}
app.kubernetes.io/name: storeplane
app.kubernetes.io/instance: {{ .root.Values.name | quote }}
app.kubernetes.io/component: {{ .component | quote }}
{{- end }}

{{/* Every pod here satisfies Pod Security "restricted". */}}
{{- define "storeplane.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .uid }}
runAsGroup: {{ .uid }}
fsGroup: {{ .uid }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "storeplane.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The users that the policies know. */}}
{{- define "storeplane.provisionerUser" -}}
system:serviceaccount:{{ .Values.jobs.namespace }}:{{ .Values.name }}-provisioner
{{- end }}

{{- define "storeplane.databaseHost" -}}
{{- if eq .Values.postgresql.enabled .Values.externalDatabase.enabled }}
{{- fail "enable exactly one of postgresql and externalDatabase" }}
{{- end }}
{{- if .Values.externalDatabase.enabled -}}
{{ required "externalDatabase.host is not set" .Values.externalDatabase.host }}
{{- else -}}
{{ .Values.name }}-postgres.{{ .Release.Namespace }}.svc
{{- end }}
{{- end }}

{{- define "storeplane.databasePort" -}}
{{ if .Values.externalDatabase.enabled }}{{ .Values.externalDatabase.port }}{{ else }}5432{{ end }}
{{- end }}

{{- define "storeplane.databaseName" -}}
{{ if .Values.externalDatabase.enabled }}{{ .Values.externalDatabase.database }}{{ else }}storeplane{{ end }}
{{- end }}

{{- define "storeplane.databaseOwner" -}}
{{ if .Values.externalDatabase.enabled }}{{ .Values.externalDatabase.user }}{{ else }}storeplane{{ end }}
{{- end }}

{{/*
The address without a password. That comes as PGPASSWORD, which the driver reads: in an address it would have to be
escaped, and a Secret's value cannot be escaped here.
*/}}
{{- define "storeplane.databaseUrl" -}}
postgresql://{{ .user }}@{{ include "storeplane.databaseHost" .root }}:{{ include "storeplane.databasePort" .root }}/{{ include "storeplane.databaseName" .root }}
{{- with .root.Values.externalDatabase }}
{{- if and .enabled (hasPrefix "verify" .sslmode) (not .caSecret) }}
{{- fail (printf "externalDatabase.caSecret is not set, and sslmode %s needs one" .sslmode) }}
{{- end }}
{{- if .enabled -}}
?sslmode={{ .sslmode }}{{ if .caSecret }}&sslrootcert=/etc/storeplane/database-ca/ca.crt{{ end }}
{{- else -}}
?sslmode=disable
{{- end }}
{{- end }}
{{- end }}

{{/* One user's way to the database, as environment. */}}
{{- define "storeplane.databaseEnvironment" -}}
- name: DATABASE_URL
  value: {{ include "storeplane.databaseUrl" . | quote }}
- name: PGPASSWORD
  valueFrom: {secretKeyRef: {name: {{ .secret | quote }}, key: {{ .key | quote }}}}
{{- end }}

{{- define "storeplane.appDatabase" -}}
{{ include "storeplane.databaseEnvironment" (dict "root" . "user" "storeplane_app" "secret" .Values.existingSecret "key" "APP_PASSWORD") }}
{{- end }}

{{- define "storeplane.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if and .Values.externalDatabase.enabled .Values.externalDatabase.caSecret }}
- {name: database-ca, mountPath: /etc/storeplane/database-ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "storeplane.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- if and .Values.externalDatabase.enabled .Values.externalDatabase.caSecret }}
- name: database-ca
  secret: {secretName: {{ .Values.externalDatabase.caSecret | quote }}, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- end }}
