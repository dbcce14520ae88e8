systemd-tmpfiles --create mtls-proxy.conf || :
journalctl --update-catalog || :
if [ "$1" -eq 1 ]; then
	# The distribution's presets decide what is enabled, and only that is started:
	# the sockets, never the service, which starts with the first caller.
	systemctl --no-reload preset mtls-proxy.service mtls-proxy.socket || :
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload || :
		if systemctl --quiet is-enabled mtls-proxy.socket; then
			systemctl start mtls-proxy.socket ||
				echo 'mtls-proxy: the sockets could not be opened; is port 8080 of another program?' >&2
		fi
	fi
fi
