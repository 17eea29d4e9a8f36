{{- define "tq-exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tq-exporter.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := include "tq-exporter.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tq-exporter.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tq-exporter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tq-exporter.labels" -}}
{{- include "tq-exporter.labelsWith" (dict "root" . "labels" dict) }}
{{- end }}

{{/* The labels of an object that has `labels` of its own: they replace those of commonLabels. The chart is `root`. */}}
{{- define "tq-exporter.labelsWith" -}}
{{- with .root }}
{{- $selector := include "tq-exporter.selectorLabels" . | fromYaml }}
{{- merge $selector (include "tq-exporter.ownLabels" . | fromYaml) $.labels .Values.commonLabels | toYaml }}
{{- end }}
{{- end }}

{{/* Labels that no selector uses. */}}
{{- define "tq-exporter.ownLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* The port on which the exporter listens. */}}
{{- define "tq-exporter.port" -}}
{{- default "0.0.0.0:9464" .Values.config.listen | regexFind "[0-9]+$" }}
{{- end }}

{{/* `exec` or `http`. */}}
{{- define "tq-exporter.probeHandler" -}}
{{- if ne .Values.probes.handler "auto" }}
{{- .Values.probes.handler }}
{{- else if or .Values.web.configSecret.name (dig "web" "config_file" "" .Values.config) }}
{{- "exec" }}
{{- else }}
{{- "http" }}
{{- end }}
{{- end }}

{{/* Labels of the pod of `helm test`. The exporter's selectors must not match it. */}}
{{- define "tq-exporter.testLabels" -}}
app.kubernetes.io/name: {{ include "tq-exporter.name" . | trunc 58 | trimSuffix "-" }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The labels of the pods that run the exporter. */}}
{{- define "tq-exporter.podSelector" -}}
{{- if eq .Values.mode "sidecar" }}
{{- toYaml (default (dict "ray.io/node-type" "head") .Values.sidecar.podSelector) }}
{{- else }}
{{- include "tq-exporter.selectorLabels" . }}
{{- end }}
{{- end }}

{{- define "tq-exporter.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "tq-exporter.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "tq-exporter.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "tq-exporter.config" -}}
{{- $discovery := default (dict) .Values.config.discovery }}
{{- if not (or $discovery.ray_address $discovery.file $discovery.controller .Values.extraArgs .Values.extraEnv .Values.extraEnvFrom) }}
{{- fail "config.discovery: set how to find TransferQueue: ray_address (ray://HEAD-SERVICE:10001), file or controller" }}
{{- end }}
{{- /* The exporter refuses unknown host names, so it must know the Service's. Prometheus and the kubelet use IP addresses. */}}
{{- $service := include "tq-exporter.fullname" . }}
{{- $hosts := list $service }}
{{- range list "" ".svc" ".svc.cluster.local" }}
{{- $hosts = append $hosts (printf "%s.%s%s" $service $.Release.Namespace .) }}
{{- end }}
{{- $web := default (dict) .Values.config.web }}
{{- $hosts = concat $hosts (default (list) $web.allowed_hosts) }}
{{- $web = merge (dict "allowed_hosts" $hosts) (omit $web "allowed_hosts") }}
{{- toYaml (merge (dict "web" $web) (omit .Values.config "web") (dict "listen" "0.0.0.0:9464")) }}
{{- end }}

{{/*
The exporter's container, for this chart's Deployment and for your own pod:
  containers:
    - {{- include "tq-exporter.container" $ | nindent 6 }}
*/}}
{{- define "tq-exporter.container" -}}
name: tq-exporter
image: {{ include "tq-exporter.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args:
  - run
  - --config=/etc/tq-exporter/exporter.yaml
  {{- if .Values.web.configSecret.name }}
  - --web.config.file=/etc/tq-exporter-web/{{ .Values.web.configSecret.key }}
  {{- end }}
  {{- if .Values.web.disablePage }}
  - --web.disable-page
  {{- end }}
  {{- if .Values.historyVolume.source }}
  - --history-file={{ .Values.historyVolume.mountPath }}/run.tqr
  {{- end }}
  {{- if .Values.web.disableGroups }}
  - --web.disable-groups
  {{- end }}
  {{- range .Values.extraArgs }}
  - {{ . | quote }}
  {{- end }}
env:
  # Ray must not report usage statistics.
  - name: RAY_USAGE_STATS_ENABLED
    value: "0"
  - name: HOME
    value: /tmp
  {{- if .Values.ray.tokenSecret.name }}
  - name: RAY_AUTH_MODE
    value: token
  - name: RAY_AUTH_TOKEN
    valueFrom:
      secretKeyRef:
        name: {{ .Values.ray.tokenSecret.name }}
        key: {{ .Values.ray.tokenSecret.key }}
  {{- end }}
  {{- if .Values.otlp.headersSecret.name }}
  - name: OTEL_EXPORTER_OTLP_HEADERS
    valueFrom:
      secretKeyRef:
        name: {{ .Values.otlp.headersSecret.name }}
        key: {{ .Values.otlp.headersSecret.key }}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - name: tq-metrics
    containerPort: {{ include "tq-exporter.port" . }}
    protocol: TCP
livenessProbe:
  {{- include "tq-exporter.probe" (dict "root" . "path" "/healthz" "command" (list "tq-exporter" "healthcheck")) | nindent 2 }}
  {{- toYaml .Values.probes.liveness | nindent 2 }}
readinessProbe:
  {{- include "tq-exporter.probe" (dict "root" . "path" "/readyz" "command" (list "tq-exporter" "healthcheck" "--ready")) | nindent 2 }}
  {{- toYaml .Values.probes.readiness | nindent 2 }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - name: tq-exporter-config
    mountPath: /etc/tq-exporter
    readOnly: true
  - name: tq-exporter-tmp
    mountPath: /tmp
  {{- if .Values.web.configSecret.name }}
  - name: tq-exporter-web
    mountPath: /etc/tq-exporter-web
    readOnly: true
  {{- end }}
  {{- if .Values.discoveryVolume.source }}
  - name: tq-exporter-discovery
    mountPath: {{ .Values.discoveryVolume.mountPath }}
    readOnly: true
  {{- end }}
  {{- if .Values.historyVolume.source }}
  - name: tq-exporter-history
    mountPath: {{ .Values.historyVolume.mountPath }}
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "tq-exporter.probe" -}}
{{- if eq (include "tq-exporter.probeHandler" .root) "exec" -}}
exec:
  command:
    {{- toYaml .command | nindent 4 }}
{{- else -}}
httpGet:
  path: {{ .path }}
  port: tq-metrics
  scheme: {{ upper .root.Values.web.scheme }}
{{- end }}
{{- end }}

{{/* The `text` of a file with rules or dashboards, its links to runbooks below `runbooks`. The chart is `root`. */}}
{{- define "tq-exporter.withRunbooks" -}}
{{- if .root.Values.runbooks }}
{{- regexReplaceAllLiteral "https?://[^\\s\"]+/runbooks/" .text (printf "%s/" (trimSuffix "/" .root.Values.runbooks)) }}
{{- else }}
{{- .text }}
{{- end }}
{{- end }}

{{/* The volumes of that container. */}}
{{- define "tq-exporter.volumes" -}}
- name: tq-exporter-config
  configMap:
    name: {{ include "tq-exporter.fullname" . }}
- name: tq-exporter-tmp
  emptyDir:
    sizeLimit: 1Gi
{{- if .Values.web.configSecret.name }}
- name: tq-exporter-web
  secret:
    secretName: {{ .Values.web.configSecret.name }}
    defaultMode: 0440
{{- end }}
{{- with .Values.discoveryVolume.source }}
- name: tq-exporter-discovery
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.historyVolume.source }}
- name: tq-exporter-history
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Common part of the endpoint of a ServiceMonitor and a PodMonitor: `monitor`, and the chart as `root`. */}}
{{- define "tq-exporter.endpoint" -}}
{{- with .monitor -}}
path: /metrics
interval: {{ .interval }}
scrapeTimeout: {{ .scrapeTimeout }}
scheme: {{ $.root.Values.web.scheme }}
# The exporter's own `run` label and version are in target_info.
honorLabels: false
{{- with .tlsConfig }}
tlsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .basicAuth }}
basicAuth:
  {{- toYaml . | nindent 2 }}
{{- end }}
relabelings:
  # The rules and dashboards find the exporter by its job, whatever the release is called.
  - targetLabel: job
    replacement: tq-exporter
  {{- with $.root.Values.config.run }}
  - targetLabel: run
    replacement: {{ . | toString | replace "$" "$$" | quote }}
  {{- end }}
  # A new pod is the same exporter: its alerts keep firing, with the same link to the page.
  {{- if eq $.root.Values.mode "sidecar" }}
  - sourceLabels: [__meta_kubernetes_pod_label_ray_io_cluster]
    regex: (.+)
    targetLabel: instance
    replacement: $1-head-svc.{{ $.root.Release.Namespace }}.svc:{{ include "tq-exporter.port" $.root }}
  {{- else }}
  - targetLabel: instance
    replacement: {{ include "tq-exporter.fullname" $.root }}.{{ $.root.Release.Namespace }}.svc:{{ $.root.Values.service.port }}
  {{- end }}
  - action: labeldrop
    regex: pod
  {{- with .relabelings }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}
