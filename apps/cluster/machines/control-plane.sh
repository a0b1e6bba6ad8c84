#!/bin/bash
# The first process of the control plane: etcd, the API server and its controllers, and the cluster's DNS.
# Environment: BIN (programs), RUN (the cluster's directory), ADDRESS (of this machine), URL (of the API), SERVICES
# (their addresses).
set -euo pipefail
export PATH=$BIN:$PATH
mount -t proc proc /proc
directory=$RUN/control-plane pki=$RUN/pki
start() {
  local name=$1
  shift
  "$@" >"$directory/$name.log" 2>&1 &
}

start etcd etcd --name cluster --data-dir "$directory/etcd" --unsafe-no-fsync \
  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
  --initial-cluster cluster=http://127.0.0.1:2380
start kube-apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 \
  --advertise-address="$ADDRESS" --bind-address=:: --secure-port=6443 --service-cluster-ip-range="$SERVICES" \
  --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
  --kubelet-client-certificate="$pki/admin.crt" --kubelet-client-key="$pki/admin.key" \
  --kubelet-preferred-address-types=InternalIP \
  --service-account-issuer=https://kubernetes.default.svc.cluster.local \
  --service-account-key-file="$pki/service-accounts.pub" --service-account-signing-key-file="$pki/service-accounts.key" \
  --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true
# The others end where there is no API yet.
until curl -sf --cacert "$pki/ca.crt" --cert "$pki/admin.crt" --key "$pki/admin.key" "$URL/readyz" >/dev/null; do
  sleep 0.2
done
start kube-controller-manager kube-controller-manager --kubeconfig="$pki/controller-manager.kubeconfig" \
  --root-ca-file="$pki/ca.crt" --service-account-private-key-file="$pki/service-accounts.key" \
  --use-service-account-credentials=true --leader-elect=false --node-monitor-grace-period=20s
start kube-scheduler kube-scheduler --kubeconfig="$pki/scheduler.kubeconfig" --leader-elect=false
cat >"$directory/Corefile" <<CORE
.:53 {
  bind $ADDRESS
  errors
  ready 127.0.0.1:8181
  kubernetes cluster.local in-addr.arpa ip6.arpa {
    kubeconfig $pki/coredns.kubeconfig
    pods insecure
    ttl 5
  }
}
CORE
# Its process can be ended and started again, as an outage of the cluster's DNS.
while true; do
  [ -e "$directory/no-dns" ] || coredns -conf "$directory/Corefile" >>"$directory/coredns.log" 2>&1 || true
  sleep 0.5
done
