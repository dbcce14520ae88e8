# Before the files are unpacked, as some belong to the group. packaging/build
# puts systemd/mtls-proxy.sysusers into the place of the marker.
systemd-sysusers --replace=/usr/lib/sysusers.d/mtls-proxy.conf - <<'SYSUSERS' || :
@SYSUSERS@
SYSUSERS
