#!/bin/bash
# The first process of a node: containerd, kubelet and kube-proxy, on a root file system of the node's own. The paths that
# charts expect (/run/containerd, /etc/containerd/certs.d, /var/lib/kubelet) are each node's, and the machine's stay as
# they are.
# Environment: BIN, CNI, CONTAINERD (directories of programs), VERSION (containerd's), RUN, CONTROL_PLANE and UPSTREAM
# (addresses), REGISTRY (upstream's name), NAME, ADDRESS, PODS and ALL_PODS (addresses of this node's pods, and of all), DNS
# (the cluster's), ANYWHERE (all addresses), CONFIG_PATH (of hosts.toml files; may be empty), CONTAINERD_SETTINGS (lines of its
# configuration), KUBELET_FLAGS.
set -euo pipefail
directory=$RUN/$NAME

# ------------------------------------------------------------------------------------------------ root file system
mkdir -p "$directory"/{upper,work,root,containerd,kubelet}
mount -t overlay overlay -o "lowerdir=/,upperdir=$directory/upper,workdir=$directory/work" "$directory/root"
cd "$directory/root"
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t proc proc proc
mount -t sysfs sysfs sys
mkdir -p var/lib/containerd var/lib/kubelet node/old ".$RUN" ".$BIN" ".$CNI" ".$CONTAINERD"
mount --rbind "$RUN" ".$RUN"
for path in "$BIN" "$CNI" "$CONTAINERD"; do mount --bind "$path" ".$path"; done
pivot_root . node/old
cd /
mount --bind "$directory/containerd" /var/lib/containerd
mount --bind "$directory/kubelet" /var/lib/kubelet

# The cgroups below this node's own only, each hierarchy as the machine has it.
if [ "$(cat /proc/self/cgroup)" = 0::/ ]; then
  # Version 2: controllers can be passed on to pods only where all processes are in a leaf.
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  mkdir /sys/fs/cgroup/node
  while read -r pid; do echo "$pid" >/sys/fs/cgroup/node/cgroup.procs || true; done </sys/fs/cgroup/cgroup.procs
  for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control || true
  done
else
  mount -t tmpfs tmpfs /sys/fs/cgroup
  while IFS=: read -r hierarchy controllers _; do
    [ "$hierarchy" != 0 ] || continue
    at=/sys/fs/cgroup/${controllers#name=}
    mkdir "$at"
    # A hierarchy without controllers is mounted by its name.
    [[ $controllers != name=* ]] || controllers=none,$controllers
    mount -t cgroup -o "$controllers" cgroup "$at"
  done </proc/self/cgroup
fi
umount -l /node/old
mount --make-rshared /
hostname "node-$NAME"
export PATH=$CONTAINERD:$BIN:$PATH

# The kubelet would set these for the whole machine; it leaves them alone where they are so already.
mkdir /node/sysctl
while read -r path value; do
  echo "$value" >"/node/sysctl/$(basename "$path")"
  mount --bind "/node/sysctl/$(basename "$path")" "/proc/sys/$path"
done <<SYSCTL
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
SYSCTL
# These are the network namespace's own.
sysctl -qw net.ipv4.ip_forward=1
sysctl -qw net.ipv6.conf.all.forwarding=1
sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1 || true

printf '127.0.0.1 localhost\n%s %s\n%s node-%s\n' "$UPSTREAM" "$REGISTRY" "$ADDRESS" "$NAME" >/etc/hosts
: >/etc/resolv.conf
cat "$RUN/pki/ca.crt" >>/etc/ssl/certs/ca-certificates.crt

# --------------------------------------------------------------------------------------------------------- network
rm -rf /etc/cni/net.d
mkdir -p /etc/cni/net.d
cat >/etc/cni/net.d/10-cluster.conflist <<JSON
{"cniVersion": "1.0.0", "name": "cluster", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "$PODS"}]],
            "routes": [{"dst": "$ANYWHERE"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}
]}
JSON

# ------------------------------------------------------------------------------------------------------ containerd
rm -rf /etc/containerd /var/lib/spegel
mkdir -p /etc/containerd/certs.d
# restrict_oom_score_adj: runc of a root without CAP_SYS_RESOURCE cannot give a pod a score below containerd's own.
if [ "${VERSION%%.*}" = 1 ]; then
  cat >/etc/containerd/config.toml <<TOML
version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "$REGISTRY/cluster/pause:1"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "$CNI"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "$CONFIG_PATH"
TOML
else
  cat >/etc/containerd/config.toml <<TOML
version = 3
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "$REGISTRY/cluster/pause:1"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "$CONFIG_PATH"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["$CNI"]
TOML
fi
printf '%s\n' "$CONTAINERD_SETTINGS" >>/etc/containerd/config.toml
containerd >"$directory/containerd.log" 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.1; done

# ------------------------------------------------------------------------------------------- kubelet and kube-proxy
cat >/node/kubelet.yaml <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $RUN/pki/ca.crt}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
clusterDNS: ["$DNS"]
clusterDomain: cluster.local
resolvConf: /etc/resolv.conf
evictionHard: {memory.available: 200Mi, nodefs.available: "1%", imagefs.available: "1%"}
imageGCHighThresholdPercent: 100
YAML
# shellcheck disable=SC2086
kubelet --config=/node/kubelet.yaml --kubeconfig="$RUN/pki/kubelet-$NAME.kubeconfig" \
  --hostname-override="node-$NAME" --node-ip="$ADDRESS" $KUBELET_FLAGS >"$directory/kubelet.log" 2>&1 &
cat >/node/proxy.yaml <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
hostnameOverride: node-$NAME
clusterCIDR: "$ALL_PODS"
clientConnection: {kubeconfig: $RUN/pki/proxy.kubeconfig}
# Bounds of connection tracking are the machine's, not a network namespace's.
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s, udpTimeout: 0s, udpStreamTimeout: 0s}
YAML
kube-proxy --config=/node/proxy.yaml >"$directory/kube-proxy.log" 2>&1 &
touch "$directory/started"
wait
