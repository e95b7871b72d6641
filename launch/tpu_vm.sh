#!/usr/bin/env bash
# Trains on Cloud TPU VMs (v2 to v6e), all workers of a slice. --help says how.
set -euo pipefail

readonly PROGRAM=launch/tpu_vm.sh
readonly HOME_DIR=/opt/rollingq UNIT=rollingq

usage() {
  cat <<'HELP'
usage: launch/tpu_vm.sh COMMAND [options] [-- arguments of the run]

Trains on Cloud TPU VMs (v2 to v6e), all workers of a slice. For TPU7x and later
see launch/README.md.

commands:
  create  makes the VMs; with --queued, waits in the queue for them, and they
          install and start the run by themselves, each time they boot
  watch   of --queued: asks again for VMs that were preempted, until Ctrl-C
  setup   installs the package on all workers
  run     starts the run on all workers, in the background; a run that goes on
          there is stopped first, and saves
  logs    what a worker says, as it says it
  delete  deletes the VMs and the request for them

options, and the environment variables that they replace:
  --name NAME             TPU_NAME             of the VMs
  --project ID            TPU_PROJECT          Google Cloud project
  --zone ZONE             TPU_ZONE             such as us-east5-b
  --type TYPE             TPU_TYPE             such as v6e-16
  --version VERSION       TPU_VERSION          of the runtime; fits the type
  --source WHAT           TPU_SOURCE           what is installed: a wheel here, a
                                               wheel at gs://, or a requirement
                                               of pip; with --queued not one here
  --service_account NAME  TPU_SERVICE_ACCOUNT  of the VMs; the project's default
  --module NAME           TPU_MODULE           what runs; rollingq_jax.main
  --worker I              TPU_WORKER           of logs, or all; 0
  --spot                  spot VMs: cheaper, may be preempted
  --queued                queued resources
  --dry_run               prints the commands and files, and does nothing
  --help

example:
  export TPU_NAME=rollingq TPU_PROJECT=my-project TPU_ZONE=us-east5-b
  export TPU_TYPE=v6e-16 TPU_SOURCE=gs://my-bucket/rollingq_jax-0.1.0-py3-none-any.whl
  launch/tpu_vm.sh create --queued --spot -- \
    --config configs/ks.py --workdir gs://my-bucket/runs/ks
HELP
}

fail() {
  echo "error: $*" >&2
  exit 2
}

# A word as a shell reads it.
quoted() {
  if [[ $1 =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]]; then
    printf '%s' "$1"
  else
    printf "'%s'" "${1//\'/\'\\\'\'}"
  fi
}

joined() {
  local word line=
  for word in "$@"; do
    line+=" $(quoted "$word")"
  done
  printf '%s\n' "${line# }"
}

# Runs a command, or prints it.
call() {
  if [[ $dry_run == yes ]]; then
    joined "$@"
  else
    "$@"
  fi
}

# Writes its input to a file, or prints both.
write() {
  if [[ $dry_run == yes ]]; then
    printf '# %s:\n' "$1"
    sed 's/^/#   /'
  else
    mkdir -p "$(dirname "$1")"
    cat >"$1"
  fi
}

need() {
  local option
  for option in "$@"; do
    [[ -n ${!option} ]] ||
      fail "--$option is missing (or TPU_$(tr '[:lower:]' '[:upper:]' <<<"$option")); see $PROGRAM --help"
  done
}

# From https://docs.cloud.google.com/tpu/docs/runtimes.
check_type() {
  local fitting
  case $type in
    v6e-*) fitting=v2-alpha-tpuv6e ;;
    v5p-*) fitting=v2-alpha-tpuv5 ;;
    v5litepod-*) fitting=v2-alpha-tpuv5-lite ;;
    v2-* | v3-* | v4-*) fitting=tpu-ubuntu2204-base ;;
    *) fail "--type $type: the Cloud TPU API has v2-N, v3-N, v4-N, v5litepod-N, v5p-N and v6e-N; for TPU7x and later use launch/k8s_jobset.yaml" ;;
  esac
  version=${version:-$fitting}
}

tpu_vm() {
  local verb=$1
  shift
  call gcloud compute tpus tpu-vm "$verb" "$@" --project="$project" --zone="$zone"
}

queued_resources() {
  local verb=$1
  shift
  call gcloud compute tpus queued-resources "$verb" "$@" --project="$project" --zone="$zone"
}

on_all_workers() {
  tpu_vm ssh "$name" --worker=all --command="$1"
}

# The script that installs the package on a worker, as root. uv brings a Python,
# as that of the runtimes is older than the package needs.
install_script() {
  local wheel=/tmp/${source##*/} requirement=$source fetch=
  if [[ $source == *.whl ]]; then
    requirement="rollingq_jax[demo,report,tpu] @ file://$wheel"
  fi
  if [[ $source == gs://*.whl ]]; then
    fetch="gcloud storage cp $(joined "$source" "$wheel")"
  fi
  cat <<SCRIPT
#!/bin/bash
set -euo pipefail
export HOME=/root
command -v uv >/dev/null ||
  curl -LsSf https://astral.sh/uv/install.sh | UV_INSTALL_DIR=/usr/local/bin sh
mkdir -p $HOME_DIR
uv venv --quiet --allow-existing --python 3.12 $HOME_DIR/venv
${fetch:+$fetch
}uv pip install --python $HOME_DIR/venv/bin/python $(joined "$requirement" gcsfs)
SCRIPT
}

# The script that makes the run a service of a worker and starts it, as root.
# Ended by SIGTERM it has saved; a failure is tried again, but not for ever.
start_script() {
  cat <<SCRIPT
#!/bin/bash
set -euo pipefail
cat >$HOME_DIR/run.sh <<'RUN'
cd $HOME_DIR
exec $HOME_DIR/venv/bin/python -m $(joined "$module" "$@")
RUN
cat >/etc/systemd/system/$UNIT.service <<'SERVICE'
[Unit]
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=3600
StartLimitBurst=20

[Service]
Environment=HOME=/root PYTHONUNBUFFERED=1
ExecStart=/bin/bash $HOME_DIR/run.sh
Restart=on-failure
RestartSec=30
TimeoutStopSec=120

[Install]
WantedBy=multi-user.target
SERVICE
systemctl daemon-reload
systemctl enable $UNIT
systemctl reset-failed $UNIT || true
systemctl restart $UNIT
SCRIPT
}

create() {
  need name project zone type
  check_type
  local options=(--accelerator-type="$type")
  if [[ $spot == yes ]]; then
    options+=(--spot)
  fi
  if [[ -n $service_account ]]; then
    options+=(--service-account="$service_account")
  fi
  if [[ $queued == no ]]; then
    [[ $# == 0 ]] || fail "create takes no arguments of the run without --queued; give them to $PROGRAM run"
    tpu_vm create "$name" "${options[@]}" --version="$version"
    return
  fi
  need source
  [[ $# != 0 ]] || fail "create --queued needs the arguments of the run after --; see $PROGRAM --help"
  [[ $source != *.whl || $source == gs://* ]] ||
    fail "--source $source: the VMs of --queued fetch it themselves; expected gs://BUCKET/NAME.whl or a requirement of pip"
  { install_script && start_script "$@" | tail -n +3; } | write "$scripts/startup.sh"
  queued_resources create "$name" --node-id="$name" "${options[@]}" --runtime-version="$version" \
    --metadata-from-file=startup-script="$scripts/startup.sh"
}

setup() {
  need name project zone source
  if [[ $source == *.whl && $source != gs://* ]]; then
    [[ -f $source || $dry_run == yes ]] || fail "--source $source: there is no such file; python -m build makes it"
    tpu_vm scp "$source" "$name:/tmp/" --worker=all
  fi
  install_script | write "$scripts/setup.sh"
  tpu_vm scp "$scripts/setup.sh" "$name:/tmp/rollingq_setup.sh" --worker=all
  on_all_workers 'sudo bash /tmp/rollingq_setup.sh'
}

run() {
  need name project zone
  [[ $# != 0 ]] || fail "run needs the arguments of the run after --; see $PROGRAM --help"
  start_script "$@" | write "$scripts/run.sh"
  tpu_vm scp "$scripts/run.sh" "$name:/tmp/rollingq_run.sh" --worker=all
  on_all_workers 'sudo bash /tmp/rollingq_run.sh'
}

logs() {
  need name project zone worker
  tpu_vm ssh "$name" --worker="$worker" \
    --command="sudo journalctl --follow --lines=200 --unit=$UNIT --unit=google-startup-scripts"
}

delete() {
  need name project zone
  if [[ $queued == yes ]]; then
    queued_resources delete "$name" --force --quiet
  else
    tpu_vm delete "$name" --quiet
  fi
}

# A preempted request is suspended, and never served again.
watch() {
  local state
  need name project zone type source
  [[ $queued == yes ]] || fail "watch needs --queued; VMs without it are made again by $PROGRAM create"
  while true; do
    if [[ $dry_run == yes ]]; then
      queued_resources describe "$name" --format='value(state.state)'
      echo '# and where that says SUSPENDED or FAILED:'
      state=SUSPENDED
    else
      state=$(queued_resources describe "$name" --format='value(state.state)') || state=
    fi
    case $state in
      SUSPENDED | FAILED)
        delete
        create "$@"
        ;;
    esac
    [[ $dry_run == no ]] || return 0
    sleep 60
  done
}

name=${TPU_NAME:-} project=${TPU_PROJECT:-} zone=${TPU_ZONE:-} type=${TPU_TYPE:-}
version=${TPU_VERSION:-} source=${TPU_SOURCE:-} service_account=${TPU_SERVICE_ACCOUNT:-}
module=${TPU_MODULE:-rollingq_jax.main} worker=${TPU_WORKER:-0}
spot=no queued=no dry_run=no

[[ $# != 0 ]] || fail "no command; see $PROGRAM --help"
command=$1
shift
case $command in
  create | watch | setup | run | logs | delete) ;;
  --help | -h)
    usage
    exit
    ;;
  *) fail "there is no command $command; expected create, watch, setup, run, logs or delete" ;;
esac
while [[ $# != 0 ]]; do
  word=$1
  shift
  case $word in
    --) break ;;
    --spot | --queued | --dry_run) printf -v "${word#--}" yes ;;
    --name | --project | --zone | --type | --version | --source | --service_account | --module | --worker)
      [[ $# != 0 ]] || fail "$word has no value"
      printf -v "${word#--}" %s "$1"
      shift
      ;;
    --name=* | --project=* | --zone=* | --type=* | --version=* | --source=* | --service_account=* | --module=* | --worker=*)
      option=${word%%=*}
      printf -v "${option#--}" %s "${word#*=}"
      ;;
    --help | -h)
      usage
      exit
      ;;
    *) fail "unknown option $word; arguments of the run come after --; see $PROGRAM --help" ;;
  esac
done
scripts=${XDG_CACHE_HOME:-$HOME/.cache}/rollingq_jax/tpu_vm/${name:-none}
[[ $dry_run == yes ]] || command -v gcloud >/dev/null ||
  fail "gcloud is not installed; see https://cloud.google.com/sdk/docs/install, or add --dry_run"
"$command" "$@"
