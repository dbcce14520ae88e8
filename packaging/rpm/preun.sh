# At removal, not at an upgrade; the sockets first, as an open one would start
# the service again.
if [ "$1" -eq 0 ]; then
	now=
	if [ -d /run/systemd/system ]; then now=--now; fi
	systemctl --no-reload disable $now mtls-proxy.socket || :
	systemctl --no-reload disable $now mtls-proxy.service || :
fi
