{{- define "spegel.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Kept short enough for the longest of the names that are made of it. */}}
{{- define "spegel.fullname" -}}
{{- $name := include "spegel.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "spegel.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{- define "spegel.serviceAccountName" -}}
{{- default (include "spegel.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{- define "spegel.selectorLabels" -}}
app.kubernetes.io/name: {{ include "spegel.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of an object: (dict "root" $ "component" name "more" map). */}}
{{- define "spegel.labels" -}}
{{- $labels := dict
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/managed-by" .root.Release.Service
}}
{{- toYaml (merge (dict "app.kubernetes.io/component" .component) (include "spegel.selectorLabels" .root | fromYaml) $labels .root.Values.commonLabels (default dict .more)) }}
{{- end }}

{{/* Labels of a pod, which change with each release no more than they must: each change restarts it. */}}
{{- define "spegel.podLabels" -}}
{{- toYaml (merge (dict "app.kubernetes.io/component" .component) (include "spegel.selectorLabels" .root | fromYaml) .root.Values.commonLabels) }}
{{- end }}

{{- define "spegel.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end }}
{{- end }}
{{- end }}

{{/*
Security context of the containers that write to the node's own files, which are root's: its user, and still no
capability. Without capabilities root is held to the files' permissions as any user is.
*/}}
{{- define "spegel.rootSecurityContext" -}}
{{- $root := dict "runAsNonRoot" false "runAsUser" 0 "runAsGroup" 0 }}
{{- toYaml (merge $root (omit .Values.securityContext "runAsNonRoot" "runAsUser" "runAsGroup")) }}
{{- end }}

{{/* Whether nodePort prefers the pod of the same node: "true" or "". */}}
{{- define "spegel.preferSameNode" -}}
{{- $chosen := .Values.service.registry.usePreferSameNodeTrafficDistribution }}
{{- if kindIs "bool" $chosen }}
{{- ternary "true" "" $chosen }}
{{- else if semverCompare ">=1.34.0-0" .Capabilities.KubeVersion.Version }}
{{- "true" }}
{{- end }}
{{- end }}

{{/*
How mirrors are restarted, one after another: the new one is ready before the old one stops. Two cannot have one hostPort.
*/}}
{{- define "spegel.updateStrategy" -}}
{{- $surge := ternary 1 0 (eq (include "spegel.preferSameNode" .) "true") }}
{{- $one := dict "maxSurge" $surge "maxUnavailable" (sub 1 $surge) }}
{{- toYaml (default (dict "type" "RollingUpdate" "rollingUpdate" $one) .Values.updateStrategy) }}
{{- end }}

{{/* Whether the pods talk to the Kubernetes API: "true" or "". */}}
{{- define "spegel.usesApi" -}}
{{- if or (has "kubernetes" .Values.spegel.bootstrapKinds) .Values.nodeReadiness.enabled }}
{{- "true" }}
{{- end }}
{{- end }}

{{/*
How mirrors treat peers that prove nothing: "require", "prefer" or "off". A mode that is not chosen stays as it is in the cluster; a
release that had no key gets "prefer", since its mirrors get the key one after another. YAML takes the word off for false.
*/}}
{{- define "spegel.peerAuth" -}}
{{- $chosen := ternary "off" .Values.peerAuth (kindIs "bool" .Values.peerAuth) }}
{{- if not .Values.clusterKey.enabled }}
{{- if has $chosen (list "require" "prefer") }}
{{- fail (printf "peerAuth: %s needs clusterKey.enabled" $chosen) }}
{{- end }}
{{- "off" }}
{{- else if $chosen }}
{{- $chosen }}
{{- else }}
{{- $mode := ternary "prefer" "require" .Release.IsUpgrade }}
{{- $live := lookup "apps/v1" "DaemonSet" (include "spegel.namespace" .) (include "spegel.fullname" .) | default dict }}
{{- range dig "spec" "template" "spec" "containers" list $live }}
{{- if eq .name "registry" }}
{{- $mode = ternary "require" "prefer" (has "--peer-auth=require" .args) }}
{{- end }}
{{- end }}
{{- $mode }}
{{- end }}
{{- end }}

{{/* The Secret with the cluster key. */}}
{{- define "spegel.keySecret" -}}
{{- default (printf "%s-cluster-key" (include "spegel.fullname" .)) .Values.clusterKey.existingSecret }}
{{- end }}

{{/* Whether the Secret goes at uninstall: "true" or "". */}}
{{- define "spegel.removesKey" -}}
{{- with .Values.clusterKey }}
{{- if and .enabled (not .existingSecret) (not .keep) }}
{{- "true" }}
{{- end }}
{{- end }}
{{- end }}

{{/*
Security context of the mirrors' pods. The key is readable by its group, which is root's as the mirror's is; where the mirror
has another group, that one gets the key.
*/}}
{{- define "spegel.podSecurityContext" -}}
{{- $group := int .Values.securityContext.runAsGroup }}
{{- $owner := ternary (dict "fsGroup" $group) dict (and (ne $group 0) (ne (include "spegel.peerAuth" .) "off")) }}
{{- with merge dict (default dict .Values.podSecurityContext) $owner }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{- define "spegel.keyMount" -}}
- name: cluster-key
  mountPath: /etc/secrets/cluster-key
  readOnly: true
{{- end }}

{{- define "spegel.leaseName" -}}
{{ include "spegel.fullname" . }}-leader
{{- end }}

{{- define "spegel.bootstrapDomain" -}}
{{ include "spegel.fullname" . }}-bootstrap.{{ include "spegel.namespace" . }}.svc.{{ .Values.clusterDomain }}
{{- end }}

{{/*
containerd makes its socket anew when it restarts, so that its directory is mounted and not the socket, which would stay
the old one. A socket in a directory that is not containerd's own is mounted alone.
*/}}
{{- define "spegel.socketMount" -}}
{{- $directory := dir .Values.spegel.containerdSock }}
{{- if has $directory (list "/" "/run" "/var/run") -}}
path: {{ .Values.spegel.containerdSock }}
type: Socket
{{- else -}}
path: {{ $directory }}
type: Directory
{{- end }}
{{- end }}

{{/* Where pods run: (dict "root" $ "at" map with nodeSelector, affinity and tolerations). */}}
{{- define "spegel.placement" -}}
priorityClassName: {{ .root.Values.priorityClassName }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .at.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .at.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .at.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
Tolerations of a pod that needs one node that works, whichever: those that name their taint. One that tolerates every taint
would be given to a node that is down.
*/}}
{{- define "spegel.namedTolerations" -}}
{{- $named := list
  (dict "key" "node-role.kubernetes.io/control-plane" "operator" "Exists")
  (dict "key" "node.kubernetes.io/not-ready" "operator" "Exists" "effect" "NoExecute" "tolerationSeconds" 5)
  (dict "key" "node.kubernetes.io/unreachable" "operator" "Exists" "effect" "NoExecute" "tolerationSeconds" 5)
}}
{{- range concat .Values.tolerations .Values.cleanup.tolerations }}
{{- if and .key (not (hasPrefix "node.kubernetes.io/" .key)) }}
{{- $named = append $named . }}
{{- end }}
{{- end }}
{{- toYaml (uniq $named) }}
{{- end }}

{{/* The mirror's environment variables: a list, or nothing. */}}
{{- define "spegel.environment" -}}
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
# Kubernetes gives pods this label of their node, from 1.35 on; before, it is empty.
- name: ZONE
  valueFrom:
    fieldRef:
      fieldPath: metadata.labels['topology.kubernetes.io/zone']
{{- with .Values.spegel.otel }}
{{- if .endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ ternary .endpoint (printf "%s://%s" (ternary "http" "https" .insecure) .endpoint) (contains "://" .endpoint) | quote }}
- name: OTEL_SERVICE_NAME
  value: {{ .serviceName | quote }}
{{- $sampler := toString .sampler }}
{{- if regexMatch "^[0-9.]+$" $sampler }}
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ $sampler | quote }}
{{- else if $sampler }}
- name: OTEL_TRACES_SAMPLER
  value: {{ $sampler }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.spegel.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Annotations of what runs after an uninstall, at a weight; nothing of it stays, whatever comes of it. */}}
{{- define "spegel.cleanupHook" -}}
helm.sh/hook: post-delete
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
helm.sh/hook-weight: {{ . | quote }}
{{- end }}

{{/* Annotations of what runs before an installation or an upgrade, at a weight. A hook that failed stays, to be looked at. */}}
{{- define "spegel.keyHook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
helm.sh/hook-weight: {{ . | quote }}
{{- end }}
