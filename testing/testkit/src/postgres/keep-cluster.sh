# Runs a PostgreSQL cluster until its standard input is closed, then removes it.
#
#   sh -c "$(cat keep-cluster.sh)" keep-cluster PROGRAMS PORT...
#
# PROGRAMS is the folder of initdb and pg_ctl. The cluster uses the first of the PORTs that is free. The first line of standard input is
# the superuser's password, since every user of the machine can see arguments. TESTKIT_SETTINGS may hold lines for postgresql.conf.
# Standard output says "ready PORT FOLDER", or "failed" and then the server's log.
#
# Only the process that started this script holds the other end of standard input. The system closes it when that process ends, also after
# SIGKILL. This script then cleans up. So it ignores signals, and does everything in sequence: it never removes what is being created.
set -u
trap '' HUP INT QUIT TERM PIPE
umask 077
cd /
programs=$1
shift
IFS= read -r password || exit 1

folder=$(mktemp -d "${TMPDIR:-/tmp}/testkit-postgres-XXXXXX" 2>/dev/null) ||
  folder=$(mktemp -d /tmp/testkit-postgres-XXXXXX) || exit 1
data=$folder/data
log=$folder/log

create() {
  printf '%s\n' "$password" >"$folder/password"
  # As in hosted PostgreSQL, if this system has it.
  if locale -a 2>/dev/null | grep -Eiqx 'C\.utf-?8'; then locale=C.UTF-8; else locale=C; fi
  # --no-sync is for initdb only; the server runs with fsync on.
  "$programs/initdb" -D "$data" -U postgres -A password --pwfile "$folder/password" \
    -E UTF8 --locale "$locale" --lc-messages C --no-sync </dev/null >"$log" 2>&1 || return 1
  rm "$folder/password"
  cat >>"$data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 300
fsync = on
synchronous_commit = on
${TESTKIT_SETTINGS:-}
CONF
}

start() {
  for port; do
    "$programs/pg_ctl" -D "$data" -l "$log" -o "-p $port" -w -t 60 start </dev/null >>"$folder/pg_ctl" 2>&1 && return
    # Another program may have taken the port since it was found free. Other errors remain errors.
    tail -n 20 "$log" | grep -q 'could not bind' || return 1
  done
  return 1
}

if create && start "$@"; then
  echo "ready $port $folder"
else
  echo failed
  cat "$folder/pg_ctl" "$log" 2>/dev/null
fi
exec >/dev/null

while IFS= read -r line; do :; done

if [ -f "$data/postmaster.pid" ]; then
  # A test may have left it frozen. It ends its children itself.
  kill -CONT "$(head -n 1 "$data/postmaster.pid")" 2>/dev/null
  "$programs/pg_ctl" -D "$data" -m immediate -w -t 30 stop </dev/null >/dev/null 2>&1
fi
rm -rf "$folder"
