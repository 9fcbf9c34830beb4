# Runs a standby of a PostgreSQL cluster of this machine until its standard input is closed, then removes it, as keep-cluster.sh does.
#
#   sh -c "$(cat keep-standby.sh)" keep-standby PROGRAMS PRIMARY PORT...
#
# PRIMARY is the port of the primary. The standby uses the first of the PORTs that is free. The first line of standard input is the
# password of the superuser `postgres`. Standard output says "ready PORT", or "failed" and then the logs.
set -u
trap '' HUP INT QUIT TERM PIPE
umask 077
cd /
programs=$1
primary=$2
shift 2
IFS= read -r password || exit 1

folder=$(mktemp -d "${TMPDIR:-/tmp}/testkit-postgres-XXXXXX" 2>/dev/null) ||
  folder=$(mktemp -d /tmp/testkit-postgres-XXXXXX) || exit 1
data=$folder/data
log=$folder/log

create() {
  PGPASSWORD=$password "$programs/pg_basebackup" -D "$data" -h 127.0.0.1 -p "$primary" -U postgres \
    --write-recovery-conf --checkpoint fast --no-sync </dev/null >"$log" 2>&1
}

start() {
  for port; do
    "$programs/pg_ctl" -D "$data" -l "$log" -o "-p $port" -w -t 60 start </dev/null >>"$folder/pg_ctl" 2>&1 && return
    tail -n 20 "$log" | grep -q 'could not bind' || return 1
  done
  return 1
}

if create && start "$@"; then
  echo "ready $port"
else
  echo failed
  cat "$folder/pg_ctl" "$log" 2>/dev/null
fi
exec >/dev/null

while IFS= read -r line; do :; done

if [ -f "$data/postmaster.pid" ]; then
  "$programs/pg_ctl" -D "$data" -m immediate -w -t 30 stop </dev/null >/dev/null 2>&1
fi
rm -rf "$folder"
