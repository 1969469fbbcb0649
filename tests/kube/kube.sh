#!/usr/bin/env bash
# A real Kubernetes of several nodes on one Linux machine, without Docker and without a registry.
#
# Every node is a network namespace with its own containerd, kubelet and kube-proxy. etcd, the control plane and CoreDNS
# have a namespace of their own (`control`), so that every node can be cut off or killed and the API server stays.
# Volumes are `local` ones, bound to their node and made in advance; fsGroup works on them.
#
#   kube.sh check              say what this machine lacks (nothing is ever installed)
#   kube.sh build              build the Kubernetes programs from their Go modules (once; about 8 minutes on 2 cores)
#   kube.sh up [NODES]         start the cluster (about 10 s) and print its nodes; default 3, one zone each
#   kube.sh down               stop everything that `up` started and remove its state
#   kube.sh nodes              the names of the nodes, one per line
#   kube.sh kubeconfig         the path of the KUBECONFIG; kube.sh bin: the folder of kubectl and helm
#   kube.sh load FILE.tar      import a docker-archive image on every node
#   kube.sh volumes            make another set of empty volumes on every node
#   kube.sh cut N | heal N     pull node N's network cable, or plug it in again
#   kube.sh kill N | start N   take node N's power away (no process says goodbye on the network), or give it back
#   kube.sh pid CONTAINER      the process id of a container's first process (the id without `containerd://`)
#   kube.sh logs [NAME]        the logs' last lines, or all of one daemon's log
#
# COTERIE_KUBE_CACHE    what is built, and kept between runs   (default ~/.cache/coterie-kube)
# COTERIE_KUBE_VOLUMES  how many volumes a set has, per node   (default 12)
set -euo pipefail

K8S=1.35.4 ETCD=3.6.16 HELM=3.22.0 COREDNS=1.15.0
CACHE=${COTERIE_KUBE_CACHE:-$HOME/.cache/coterie-kube}
BUILT=$CACHE/k8s-$K8S-etcd-$ETCD-helm-$HELM-coredns-$COREDNS # another version is another folder
BIN=$BUILT/bin RUN=$CACHE/run VOLUMES=${COTERIE_KUBE_VOLUMES:-12}
NET=10.123.0 POD=10.124 SVC=10.96.0 API=10.123.0.5
K8S_PROGRAMS=(kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl)
export PATH=$BIN:/usr/local/sbin:/usr/sbin:/sbin:$PATH KUBECONFIG=$RUN/pki/admin.kubeconfig

say() { printf 'kube: %s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }

# --- what the machine must have --------------------------------------------------------------------------------------

check_programs() { # check_programs PROGRAM=PACKAGE…: names every missing program and the packages that bring them
  local pair missing=() packages=()
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null 2>&1 || [ -e "${pair%%=*}" ] || { missing+=("${pair%%=*}"); packages+=("${pair#*=}"); }
  done
  [ ${#missing[@]} = 0 ] && return
  say "missing: ${missing[*]}"
  say "on Debian: sudo apt-get install --no-install-recommends $(printf '%s\n' "${packages[@]}" | sort -u | paste -sd ' ')"
  return 1
}

check_build() {
  check_programs go=golang-go || { say "go: 1.25 or newer, https://go.dev/doc/install (Debian 12's golang-go is too old)"; return 1; }
}

check_run() {
  local ok=1
  [ "$(id -u)" = 0 ] || { say "needs root: it makes network namespaces, mounts and cgroups (run it with sudo -E)"; ok=; }
  check_programs containerd=containerd ctr=containerd runc=runc /usr/lib/cni/bridge=containernetworking-plugins \
    /usr/lib/cni/portmap=containernetworking-plugins ip=iproute2 iptables=iptables conntrack=conntrack openssl=openssl \
    buildah=buildah cc=gcc nsenter=util-linux flock=util-linux pgrep=procps sysctl=procps || ok=
  [ ! -r /proc/modules ] || modprobe -q br_netfilter overlay 2>/dev/null || true
  [ -n "$ok" ]
}

check() {
  local ok=1
  check_run || ok=
  built || check_build || ok=
  [ -n "$ok" ] || return 1
  built && say "ready to start" || say "ready to build"
}

# --- building --------------------------------------------------------------------------------------------------------

built() { local p; for p in "${K8S_PROGRAMS[@]}" etcd helm coredns; do [ -x "$BIN/$p" ] || return 1; done; }

quietly() { # quietly COMMAND…: its output is shown only when it fails
  local out; out=$(mktemp)
  "$@" >"$out" 2>&1 || { tail -n 30 "$out" >&2; rm -f "$out"; fail "failed: $*"; }
  rm -f "$out"
}

go_module() { # go_module FOLDER PACKAGE…: a Go module that imports the packages, tidied
  local dir=$1 package; shift; cd "$dir"
  { printf '//go:build tools\n\npackage tools\n\nimport (\n'; for package in "$@"; do printf '\t_ "%s"\n' "$package"; done; echo ')'; } > tools.go
  quietly go mod tidy
}

build_kubernetes() {
  local dir=$BUILT/build/kubernetes src program packages=()
  mkdir -p "$dir"; cd "$dir"
  printf 'module tools\n\ngo 1.25.0\n' > go.mod
  src=$(go mod download -json "k8s.io/kubernetes@v$K8S" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
  [ -n "$src" ] || fail "cannot download k8s.io/kubernetes@v$K8S (GOPROXY is $(go env GOPROXY))"
  # k8s.io/kubernetes names its staging modules v0.0.0; they are published as v0.MINOR.PATCH.
  { printf 'module tools\n\ngo 1.25.0\n\nrequire k8s.io/kubernetes v%s\n\nreplace (\n' "$K8S"
    grep -oE '^\s+k8s.io/[a-z-]+ v0.0.0$' "$src/go.mod" | awk -v v="v0.${K8S#1.}" '{print "\t"$1" => "$1" "v}'; echo ')'; } > go.mod
  for program in "${K8S_PROGRAMS[@]}"; do packages+=("k8s.io/kubernetes/cmd/$program"); done
  go_module "$dir" "${packages[@]}"
  quietly go build -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v$K8S" -o "$dir/out/" "${packages[@]}"
  mv "$dir"/out/* "$BIN/"
}

build_module() { # build_module NAME MODULE@VERSION PACKAGE: one program in a Go module of its own
  local dir=$BUILT/build/$1
  mkdir -p "$dir"; cd "$dir"
  printf 'module tools\n\ngo 1.25.0\n' > go.mod
  quietly go get "$2"
  go_module "$dir" "$3"
  quietly go build -trimpath -ldflags '-s -w' -o "$dir/$1" "$3"
  mv "$dir/$1" "$BIN/$1"
}

build() {
  local started=$SECONDS program
  mkdir -p "$BIN"
  exec 8>"$CACHE/build.lock"; flock 8 # of two builds at a time the second finds everything done
  built && return
  check_build || exit 1
  for program in "${K8S_PROGRAMS[@]}"; do
    [ -x "$BIN/$program" ] || { say "building Kubernetes $K8S (once, about 8 minutes on 2 cores) …"; build_kubernetes; break; }
  done
  [ -x "$BIN/etcd" ] || { say "building etcd $ETCD …"; build_module etcd "go.etcd.io/etcd/server/v3@v$ETCD" go.etcd.io/etcd/server/v3; }
  [ -x "$BIN/helm" ] || { say "building helm $HELM …"; build_module helm "helm.sh/helm/v3@v$HELM" helm.sh/helm/v3/cmd/helm; }
  [ -x "$BIN/coredns" ] || { say "building CoreDNS $COREDNS …"; build_module coredns "github.com/coredns/coredns@v$COREDNS" github.com/coredns/coredns; }
  exec 8>&-
  say "built in $((SECONDS - started)) s: $BIN"
}

pause_image() { # the sandbox image: its only program sleeps
  [ -f "$BUILT/pause.tar" ] && return
  local container
  printf 'int pause(void); int main(void) { for (;;) pause(); }\n' | cc -static -O2 -x c -o "$BUILT/pause" -
  container=$(buildah from scratch)
  buildah copy -q "$container" "$BUILT/pause" /pause >/dev/null
  buildah config --entrypoint '["/pause"]' "$container"
  buildah commit -q "$container" localhost/pause:1 >/dev/null; buildah rm "$container" >/dev/null
  rm -f "$BUILT/pause.tar.new"
  buildah push -q localhost/pause:1 "docker-archive:$BUILT/pause.tar.new:localhost/pause:1"
  mv "$BUILT/pause.tar.new" "$BUILT/pause.tar"
}

# --- the parts of a running cluster ----------------------------------------------------------------------------------

daemon() { # daemon NETNS NAME COMMAND…: in the background, its pid and log kept; nothing happens if it runs already
  local ns=$1 name=$2; shift 2
  ! running "$name" || return 0
  # nsenter and not `ip netns exec`, which would hide /sys/fs/cgroup. The locks (8, 9) must not live on in a daemon.
  COTERIE_KUBE_OF=$RUN nsenter --net="/run/netns/$ns" setsid "$@" </dev/null >>"$RUN/log/$name.log" 2>&1 8>&- 9>&- &
  echo $! > "$RUN/$name.pid"
}

running() { # running NAME: whether the pid in its file is still that daemon (and not a later process of the same number)
  local pid; pid=$(cat "$RUN/$1.pid" 2>/dev/null) || return 1
  grep -qzxF "COTERIE_KUBE_OF=$RUN" "/proc/$pid/environ" 2>/dev/null
}

stop() { # stop SIGNAL NAME
  ! running "$2" || kill "-$1" "$(cat "$RUN/$2.pid")" 2>/dev/null || true
}

await() { # await SECONDS WHAT COMMAND…: polls until the command succeeds
  local deadline=$((SECONDS + $1)) what=$2; shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || fail "waited in vain for $what"
    sleep 0.1
  done
}

indexes() { seq 0 $((NODES - 1)); }

credentials() {
  local user i
  mkdir -p "$RUN/pki"; cd "$RUN/pki"
  quietly openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 3650 -subj /CN=kube-ca
  quietly openssl req -newkey rsa:2048 -nodes -keyout api.key -out api.csr -subj /CN=kube-apiserver
  echo "subjectAltName=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost,IP:$SVC.1,IP:$API,IP:127.0.0.1" > san
  quietly openssl x509 -req -in api.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -extfile san -out api.crt
  quietly openssl genrsa -out sa.key 2048; quietly openssl rsa -in sa.key -pubout -out sa.pub
  { echo 'admin,admin,1,system:masters'; echo 'dns,dns,2,system:masters'; echo 'proxy,system:kube-proxy,3'
    for i in $(indexes); do echo "node$i,system:node:node$i,1$i,system:nodes"; done; } > tokens.csv
  for user in admin dns proxy $(indexes | sed s/^/node/); do cat > "$user.kubeconfig" <<E
{apiVersion: v1, kind: Config, current-context: kube, contexts: [{name: kube, context: {cluster: kube, user: $user}}],
 clusters: [{name: kube, cluster: {server: "https://$API:6443", certificate-authority: $RUN/pki/ca.crt}}],
 users: [{name: $user, user: {token: $user}}]}
E
  done
}

cable() { # cable NAME ADDRESS: a network namespace with one cable to the bridge
  ip netns add "$1"
  ip link add "v-$1" type veth peer name eth0 netns "$1"
  ip link set "v-$1" master kube0 up
  nsenter --net="/run/netns/$1" sh -ec "ip link set lo up; ip addr add $2/24 dev eth0; ip link set eth0 up
    ip route add default via $NET.1; sysctl -qw net.ipv4.ip_forward=1"
}

no_network() {
  local name
  # The kernel empties a deleted namespace some time later; its cable is deleted at once, so that `up` can follow `down`.
  for name in control $(indexes | sed s/^/node/); do ip link del "v-$name" 2>/dev/null || true; ip netns del "$name" 2>/dev/null || true; done
  for name in $(indexes); do ip route del "$POD.$name.0/24" 2>/dev/null || true; done
  ip route del "${SVC%.*}.0.0/16" 2>/dev/null || true
  ip link del kube0 2>/dev/null || true
}

network() {
  local i j
  no_network
  ip link add kube0 type bridge; ip addr add $NET.1/24 dev kube0; ip link set kube0 up
  # Where Docker set the policy of FORWARD to DROP, bridged packets would fall under it too.
  iptables -I FORWARD -i kube0 -o kube0 -j ACCEPT
  cable control $API
  for i in $(indexes); do
    cable "node$i" "$NET.1$i"
    nsenter --net="/run/netns/node$i" sysctl -qw net.bridge.bridge-nf-call-iptables=1 ||
      fail "Services need the kernel module br_netfilter: modprobe br_netfilter"
    for j in $(indexes); do [ "$j" = "$i" ] || nsenter --net="/run/netns/node$i" ip route add "$POD.$j.0/24" via "$NET.1$j"; done
    ip route replace "$POD.$i.0/24" via "$NET.1$i" # so that the host, and a test on it, reach the pods
    nsenter --net=/run/netns/control ip route add "$POD.$i.0/24" via "$NET.1$i"
  done
  ip route replace "${SVC%.*}.0.0/16" via $API
}

control_plane() {
  cd "$RUN"
  daemon control etcd etcd --data-dir "$RUN/etcd" --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --unsafe-no-fsync --log-level warn
  daemon control apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --advertise-address=$API --service-cluster-ip-range=$SVC.0/16 \
    --tls-cert-file="$RUN/pki/api.crt" --tls-private-key-file="$RUN/pki/api.key" --client-ca-file="$RUN/pki/ca.crt" \
    --token-auth-file="$RUN/pki/tokens.csv" --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --allow-privileged=true --kubelet-preferred-address-types=InternalIP --endpoint-reconciler-type=lease \
    --service-account-key-file="$RUN/pki/sa.pub" --service-account-signing-key-file="$RUN/pki/sa.key" \
    --service-account-issuer=https://kubernetes.default.svc
  await 60 "the API server" kubectl get --raw=/readyz
  daemon control controller-manager kube-controller-manager --kubeconfig="$RUN/pki/admin.kubeconfig" \
    --service-account-private-key-file="$RUN/pki/sa.key" --root-ca-file="$RUN/pki/ca.crt" --use-service-account-credentials \
    --allocate-node-cidrs --cluster-cidr=$POD.0.0/16 --leader-elect=false --bind-address=127.0.0.1 --node-monitor-grace-period=16s
  daemon control scheduler kube-scheduler --kubeconfig="$RUN/pki/admin.kubeconfig" --leader-elect=false --bind-address=127.0.0.1
  kubectl create clusterrolebinding kube-proxy --clusterrole=system:node-proxier --user=system:kube-proxy >/dev/null
  kubectl apply -f - >/dev/null <<E
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: standard, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
E
  daemon control proxy-control kube-proxy --kubeconfig="$RUN/pki/proxy.kubeconfig" --hostname-override=control --cluster-cidr=$POD.0.0/16 \
    --proxy-mode=iptables --conntrack-max-per-core=0
  printf '.:53 {\n bind %s\n kubernetes cluster.local in-addr.arpa {\n  kubeconfig %s kube\n  ttl 2\n }\n cache 2\n errors\n}\n' \
    $API "$RUN/pki/dns.kubeconfig" > Corefile
  daemon control coredns coredns -conf "$RUN/Corefile"
}

node_files() { # node_files I: the configuration of node I
  local i=$1 dir=$RUN/node$1
  mkdir -p "$dir/cni" "$dir/kubelet"
  echo 'nameserver 127.0.0.1' > "$RUN/resolv.conf"
  cat > "$dir/cni/10-kube.conflist" <<E
{"cniVersion":"0.4.0","name":"kube","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,"hairpinMode":true,"ipMasq":false,
"ipam":{"type":"host-local","dataDir":"$dir/ipam","ranges":[[{"subnet":"$POD.$i.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}},{"type":"portmap","capabilities":{"portMappings":true}}]}
E
  # restrict_oom_score_adj: needed where the machine withholds CAP_SYS_RESOURCE.
  cat > "$dir/containerd.toml" <<E
version = 2
root = "$dir/containerd"
state = "$dir/state"
[grpc]
  address = "$dir/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "$NET.1$i"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$dir/cni"
E
  cat > "$dir/kubelet.yaml" <<E
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $NET.1$i
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}, x509: {clientCAFile: $RUN/pki/ca.crt}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix://$dir/containerd.sock
clusterDNS: [$API]
clusterDomain: cluster.local
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
podLogsDir: $dir/podlogs
resolvConf: $RUN/resolv.conf
healthzPort: 0
nodeStatusUpdateFrequency: 4s
imageGCHighThresholdPercent: 100
evictionHard: {nodefs.available: "1%", imagefs.available: "1%", memory.available: "50Mi"}
E
}

start_node() { # start_node I: containerd, kubelet and kube-proxy of one node, and its cable
  local i=$1 dir=$RUN/node$1
  node_files "$i"
  ip link set "v-node$i" up
  daemon "node$i" "containerd-$i" containerd --config "$dir/containerd.toml"
  await 20 "containerd of node$i (kube.sh logs containerd-$i)" ctr -a "$dir/containerd.sock" version
  ctr -a "$dir/containerd.sock" -n k8s.io image import "$BUILT/pause.tar" >/dev/null
  daemon "node$i" "kubelet-$i" kubelet --config="$dir/kubelet.yaml" --kubeconfig="$RUN/pki/node$i.kubeconfig" --root-dir="$dir/kubelet" \
    --hostname-override="node$i" --node-ip="$NET.1$i" --cert-dir="$dir/kubelet/pki" --node-labels="topology.kubernetes.io/zone=zone-$i"
  daemon "node$i" "proxy-$i" kube-proxy --kubeconfig="$RUN/pki/proxy.kubeconfig" --hostname-override="node$i" --cluster-cidr=$POD.0.0/16 \
    --proxy-mode=iptables --conntrack-max-per-core=0
}

kill_node() { # kill_node I: the cable first, so that no socket says goodbye; then daemons, containers and their shims
  local i=$1 dir=$RUN/node$1 proc child name
  ip link set "v-node$i" down 2>/dev/null || true
  for name in kubelet proxy containerd; do stop KILL "$name-$i"; done
  for proc in /proc/[0-9]*; do # a shim names its node's socket; the containers are its children
    grep -q '^containerd-shim' "$proc/comm" 2>/dev/null && grep -qzxF "$dir/containerd.sock" "$proc/cmdline" 2>/dev/null || continue
    for child in $(pgrep -P "${proc#/proc/}" || true); do kill -9 "$child" 2>/dev/null || true; done
    kill -9 "${proc#/proc/}" 2>/dev/null || true
  done
}

container_pid() {
  local file
  file=$(compgen -G "$RUN/node*/state/io.containerd.runtime.v2.task/k8s.io/$1/init.pid" || true)
  [ -n "$file" ] || fail "no container $1 runs on any node"
  cat "$file"
}

volumes() { # volumes I: a set of empty local volumes on node I
  local i=$1 v name set
  set=$(date +%s%N | tail -c 10)
  for v in $(seq "$VOLUMES"); do
    name=node$i-$set-$v; mkdir -p "$RUN/volumes/$name"
    cat <<E
apiVersion: v1
kind: PersistentVolume
metadata: {name: $name}
spec:
  capacity: {storage: 10Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: standard
  local: {path: $RUN/volumes/$name}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node$i]}]}]}}
---
E
  done | kubectl apply -f - >/dev/null
}

# --- the commands ----------------------------------------------------------------------------------------------------

lock() { mkdir -p "$CACHE"; exec 9>"$CACHE/run.lock"; flock 9; }

all_ready() { [ "$(kubectl get nodes --no-headers | grep -c ' Ready')" = "$NODES" ]; }

up_failed() {
  trap - EXIT INT TERM
  say "could not start; the logs' last lines:"
  logs >&2 || true
  down
  exit 1
}

up() {
  local i
  NODES=$1
  [[ $NODES =~ ^[1-9]$ ]] || fail "up takes a number of nodes from 1 to 9, not '$NODES'"
  check_run || exit 1
  built || build
  lock
  if [ -e "$RUN" ]; then
    if [ "$(cat "$RUN/nodes" 2>/dev/null)" = "$NODES" ] && kubectl get --raw=/readyz >/dev/null 2>&1; then
      say "already up; starting what was stopped"
    else
      say "removing what an earlier run left behind"; down; NODES=$1
    fi
  fi
  trap up_failed EXIT; trap 'exit 130' INT TERM
  if [ ! -e "$RUN" ]; then
    mkdir -p "$RUN/log"; echo "$NODES" > "$RUN/nodes"
    pause_image; credentials; network; control_plane
    for i in $(indexes); do start_node "$i"; volumes "$i"; done
  else
    for i in $(indexes); do start_node "$i"; done
  fi
  await 60 "all nodes to become ready" all_ready
  await 30 "the default service account" kubectl get serviceaccount default
  trap - EXIT INT TERM
  kubectl get nodes -o wide
  echo "export KUBECONFIG=$KUBECONFIG PATH=$BIN:\$PATH"
}

down() {
  local i pid mount
  [ -e "$RUN" ] || return 0
  NODES=$(cat "$RUN/nodes" 2>/dev/null || echo 0)
  for i in $(indexes); do kill_node "$i"; done
  for pid in "$RUN"/*.pid; do pid=${pid##*/}; stop KILL "${pid%.pid}"; done # nothing of theirs is kept, so nothing is asked
  awk -v r="$RUN/" 'index($5, r) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r mount; do umount -l "$mount" 2>/dev/null || true; done
  no_network
  iptables -D FORWARD -i kube0 -o kube0 -j ACCEPT 2>/dev/null || true
  find /sys/fs/cgroup -depth -type d -path '*/k8s.io/*' -exec rmdir {} + 2>/dev/null || true # those in use stay
  rm -rf --one-file-system "$RUN"
}

logs() {
  local log
  if [ $# = 1 ]; then cat "$RUN/log/$1.log"; return; fi
  for log in "$RUN"/log/*.log; do [ -e "$log" ] || continue; echo "== $(basename "$log" .log)"; tail -n 12 "$log"; done
}

up_only() { [ -e "$RUN/nodes" ] || fail "the cluster is not up (kube.sh up)"; NODES=$(cat "$RUN/nodes"); }

node_index() { # node_index N|nodeN
  local i=${1#node}
  [[ $i =~ ^[0-9]+$ ]] && [ "$i" -lt "$NODES" ] || fail "no node '$1'; there are: $(indexes | sed s/^/node/ | tr '\n' ' ')"
  echo "$i"
}

usage() { sed -n '2,/^set /{/^set /!p}' "$0" | sed 's/^# \{0,1\}//'; exit 2; }

case ${1:-}/$# in
  check/1) check ;;
  build/1) build ;;
  up/1 | up/2) up "${2:-3}" ;;
  down/1) lock; down ;;
  nodes/1) up_only; indexes | sed s/^/node/ ;;
  kubeconfig/1) echo "$KUBECONFIG" ;;
  bin/1) echo "$BIN" ;;
  load/2) up_only; for i in $(indexes); do ctr -a "$RUN/node$i/containerd.sock" -n k8s.io image import "$2" >/dev/null; done ;;
  volumes/1) up_only; for i in $(indexes); do volumes "$i"; done ;;
  cut/2) up_only; i=$(node_index "$2"); ip link set "v-node$i" down ;;
  heal/2) up_only; i=$(node_index "$2"); ip link set "v-node$i" up ;;
  kill/2) up_only; i=$(node_index "$2"); kill_node "$i" ;;
  start/2) up_only; i=$(node_index "$2"); start_node "$i" ;;
  pid/2) up_only; container_pid "$2" ;;
  logs/1 | logs/2) up_only; shift; logs "$@" ;;
  *) usage ;;
esac
