journalctl --update-catalog || :
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
	# After an upgrade. Never the sockets: callers wait in them meanwhile.
	if [ "$1" -ge 1 ]; then systemctl try-restart mtls-proxy.service || :; fi
fi
