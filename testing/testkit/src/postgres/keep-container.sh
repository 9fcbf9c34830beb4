# Removes a container when its standard input is closed.
#
#   sh -c "$(cat keep-container.sh)" keep-container NAME
#
# DOCKER_HOST is the address of the engine. Standard output says "ready", or nothing if neither docker nor curl is there to remove the
# container. A line on standard input means that the container exists. Without such a line it may still be being created, so the removal
# is retried. keep-cluster.sh explains standard input.
set -u
trap '' HUP INT QUIT TERM PIPE
cd /
name=$1

command -v docker >/dev/null || command -v curl >/dev/null || exit 1
echo ready
exec >/dev/null 2>&1

# Killed first, since Podman would wait ten seconds for its stop.
remove() {
  docker kill "$name"
  docker rm --force --volumes "$name" && return
  request POST "$name/kill"
  request DELETE "$name?force=1&v=1"
}

# Without a client.
request() {
  case $DOCKER_HOST in
  unix://*) curl -sf -X "$1" --unix-socket "${DOCKER_HOST#unix://}" "http://engine/containers/$2" ;;
  tcp://* | http://*) curl -sf -X "$1" "http://${DOCKER_HOST#*://}/containers/$2" ;;
  *) return 1 ;;
  esac
}

tries=10
while IFS= read -r line; do tries=1; done

while [ "$tries" -gt 0 ]; do
  remove </dev/null
  tries=$((tries - 1))
  [ "$tries" -eq 0 ] || sleep 1
done
