# Makes three machines out of network namespaces, and removes them when its standard input is closed: also after SIGKILL of the drill
# (testing/testkit/src/postgres/keep-cluster.sh has more about that).
#
#   sh -c "$(cat keep-machines.sh)" keep-machines
#
# The machine N has the name todo-haN and the address 198.51.100.1N, this machine has 198.51.100.1 in the same network. These addresses are
# reserved for documentation, so that nothing else uses them. Standard output says "ready FOLDER", or "failed" and why. FOLDER/N is for the
# files of a machine, and belongs to the user postgres.
set -u
trap '' HUP INT QUIT TERM PIPE
umask 022
cd /

make() {
  # Another drill runs, or is just being removed. Or this machine would lose its way to whatever has these addresses.
  if ip netns list | grep '^todo-ha' || ip route show table all | grep -F '198.51.100.'; then
    echo "the machines or the addresses 198.51.100.0/24 are in use"
    return 1
  fi
  ip link add todo-ha type bridge || return 1
  ip addr add 198.51.100.1/24 dev todo-ha && ip link set todo-ha up || return 1
  for n in 1 2 3; do
    ip netns add "todo-ha$n" &&
      ip link add "todo-ha$n" type veth peer name eth0 netns "todo-ha$n" &&
      ip link set "todo-ha$n" master todo-ha up &&
      ip -n "todo-ha$n" link set lo up &&
      ip -n "todo-ha$n" addr add "198.51.100.1$n/24" dev eth0 &&
      ip -n "todo-ha$n" link set eth0 up &&
      install -d -o postgres -g postgres -m 700 "$folder/$n" || return 1
  done
}

folder=$(mktemp -d /tmp/todo-ha-XXXXXX) && chmod 755 "$folder" || exit 1
if errors=$(make 2>&1); then
  echo "ready $folder"
  is_made=1
else
  echo "failed: $errors"
  # Not what belongs to another drill.
  case $errors in *"are in use"*) is_made=0 ;; *) is_made=1 ;; esac
fi
exec >/dev/null 2>&1

while IFS= read -r line; do :; done

if [ $is_made = 1 ]; then
  for n in 1 2 3; do
    for process in $(ip netns pids "todo-ha$n"); do kill -KILL "$process"; done
    ip netns del "todo-ha$n"
  done
  ip link del todo-ha
fi
rm -rf "$folder"
