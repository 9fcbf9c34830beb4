# Removes one container as soon as its standard input is closed.
#
#   sh -c "$(cat keep-container.sh)" keep-container NAME
#
# DOCKER_HOST names the engine. Standard output says "ready", or nothing if there is no way to remove anything. A line
# on standard input says that the container exists by now; without one it may still be on its way when we are asked to
# remove it. For who holds standard input, see keep-cluster.sh.
set -u
trap '' HUP INT QUIT TERM PIPE
cd /
name=$1

command -v docker >/dev/null || command -v curl >/dev/null || exit 1
echo ready
exec >/dev/null 2>&1

# Killed first, as Podman would otherwise wait ten seconds for it to stop.
remove() {
  docker kill "$name"
  docker rm --force --volumes "$name" && return
  request POST "$name/kill"
  request DELETE "$name?force=1&v=1"
}

# For want of a client.
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
