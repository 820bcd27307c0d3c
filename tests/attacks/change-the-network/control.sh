unshare --user --map-root-user --net sh attack.sh
