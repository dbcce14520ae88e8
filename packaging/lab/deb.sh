#!/bin/bash
# The life of the .deb on a booted system: installed, configured, used, broken,
# upgraded, removed, installed again, purged. Runs inside the lab; lab-tests
# shows how.
# shellcheck source=packaging/lab/claims.sh
source /lab/claims.sh
# shellcheck source=packaging/lab/service.sh
source /lab/service.sh

install_deb() { apt-get -qq -y -o Dpkg::Use-Pty=0 install --allow-downgrades "/packages/$1"/*.deb; }
version_in() { dpkg-deb --field "/packages/$1"/*.deb Version; }
owner() { stat --format='%U:%G %a' "$1"; }

the_package_installs_from_a_file() {
  install_deb current
  same status "$(dpkg-query --show --showformat='${db:Status-Status}' mtls-proxy)" installed
  contains 'program version' "$(mtls-proxy version)" "$(version_in current | sed 's/-1$//')"
}

the_sockets_are_open_and_the_service_waits() {
  same sockets "$(state mtls-proxy.socket)" active
  same 'sockets at boot' "$(systemctl is-enabled mtls-proxy.socket)" enabled
  same service "$(state mtls-proxy.service)" inactive
  same listeners "$(ss --no-header --listening --tcp --numeric 'sport = :8080' | wc -l)" 2
}

every_file_has_its_owner_and_mode() {
  same config "$(owner /etc/mtls-proxy/config.toml)" 'root:mtls-proxy 640'
  same folder "$(owner /etc/mtls-proxy)" 'root:mtls-proxy 750'
  same conf.d "$(owner /etc/mtls-proxy/conf.d)" 'root:mtls-proxy 750'
  same tls "$(owner /etc/mtls-proxy/tls)" 'root:mtls-proxy 750'
  same run "$(owner /run/mtls-proxy)" 'mtls-proxy:mtls-proxy-admin 2751'
  getent passwd mtls-proxy | grep /usr/sbin/nologin
}

enabling_the_service_enables_its_sockets() {
  systemctl disable mtls-proxy.socket mtls-proxy.service
  same 'sockets before' "$(systemctl is-enabled mtls-proxy.socket || true)" disabled
  systemctl enable mtls-proxy.service
  same 'sockets after' "$(systemctl is-enabled mtls-proxy.socket)" enabled
}

an_upgrade_under_load_refuses_and_loses_nobody() {
  local socket pid
  seen_serial
  socket=$(property mtls-proxy.socket InvocationID)
  pid=$(property mtls-proxy.service MainPID)
  under_load -- install_deb next
  [[ $(property mtls-proxy.service MainPID) != "$pid" ]]
  same 'the run of the sockets' "$(property mtls-proxy.socket InvocationID)" "$socket"
  contains 'program version' "$(mtls-proxy version)" "$(version_in next | sed 's/-1$//')"
  contains 'running version' "$(mtls-proxy status)" "$(version_in next | sed 's/-1$//')"
}

upgrades_under_load_lose_no_kept_connection() { upgrade_keeps_connections there_and_back; }
there_and_back() {
  install_deb current
  install_deb next
}

an_upgrade_starts_nothing_that_was_stopped() {
  systemctl stop mtls-proxy.socket
  systemctl stop mtls-proxy.service
  install_deb current
  same sockets "$(state mtls-proxy.socket)" inactive
  same service "$(state mtls-proxy.service)" inactive
}

an_upgrade_keeps_what_was_disabled_disabled() {
  systemctl disable mtls-proxy.service mtls-proxy.socket
  install_deb next
  same sockets "$(systemctl is-enabled mtls-proxy.socket || true)" disabled
  same service "$(systemctl is-enabled mtls-proxy.service || true)" disabled
  systemctl enable --now mtls-proxy.service
}

a_removal_closes_the_port_and_keeps_the_configuration() {
  echo '# written by somebody' >>/etc/mtls-proxy/config.toml
  seen_serial
  apt-get -qq -y -o Dpkg::Use-Pty=0 remove mtls-proxy
  fails port_is_open 8080
  fails pgrep --exact mtls-proxy
  grep somebody /etc/mtls-proxy/config.toml
  ls -l "$drop_ins/lab.toml" /etc/mtls-proxy/tls/client.key
}

an_installation_after_a_removal_serves_again() {
  install_deb current
  same sockets "$(state mtls-proxy.socket)" active
  same serial "$(seen_serial)" "$(</root/serial)"
  grep somebody /etc/mtls-proxy/config.toml
}

a_purge_deletes_what_the_package_wrote_and_no_key() {
  apt-get -qq -y -o Dpkg::Use-Pty=0 purge mtls-proxy
  cmp /root/client.key /etc/mtls-proxy/tls/client.key
  ls -l "$drop_ins/lab.toml"
  fails test -e /etc/mtls-proxy/config.toml
  fails test -e /run/mtls-proxy
  fails test -e /run/mtls-proxy.install
  same 'links and state' "$(find /etc/systemd /var/lib/systemd -name '*mtls-proxy*')" ''
  same 'failed units' "$(systemctl list-units --failed --plain --no-legend)" ''
  rm -r /etc/mtls-proxy
}

a_port_that_is_taken_does_not_fail_the_installation() {
  local said
  systemd-run --quiet --unit=squatter --service-type=exec socat TCP-LISTEN:8080,bind=127.0.0.1,reuseaddr,fork /dev/null
  within 5 port_is_open 8080
  said=$(install_deb current 2>&1)
  echo "$said"
  contains 'what the installation says' "$said" 'port 8080'
  fails grep 'Could not execute' <<<"$said"
  same status "$(dpkg-query --show --showformat='${db:Status-Status}' mtls-proxy)" installed
  same sockets "$(state mtls-proxy.socket)" failed
  systemctl stop squatter.service
  systemctl start mtls-proxy.socket
  apt-get -qq -y -o Dpkg::Use-Pty=0 purge mtls-proxy
}

a_policy_against_starting_services_is_respected() {
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
  chmod 755 /usr/sbin/policy-rc.d
  install_deb current
  same sockets "$(state mtls-proxy.socket)" inactive
  rm /usr/sbin/policy-rc.d
  apt-get -qq -y -o Dpkg::Use-Pty=0 purge mtls-proxy
}

the_package_installs_and_goes_where_no_systemd_runs() {
  export -f install_deb
  unshare --mount --pid --fork --mount-proc bash -euxc '
    mount -t tmpfs tmpfs /run
    fails() { if "$@"; then exit 1; fi; }
    install_deb current
    getent group mtls-proxy mtls-proxy-admin
    mtls-proxy version
    fails pgrep --exact mtls-proxy
    install_deb next
    apt-get -qq -y -o Dpkg::Use-Pty=0 purge mtls-proxy
    fails test -e /usr/bin/mtls-proxy'
  systemctl daemon-reload
}

after_a_boot_the_sockets_are_open_and_a_caller_starts_the_service() {
  start_upstream
  same sockets "$(state mtls-proxy.socket)" active
  same service "$(state mtls-proxy.service)" inactive
  same serial "$(seen_serial)" "$(</root/serial)"
}

if ((LAB_BOOT > 1)); then
  claim after_a_boot_the_sockets_are_open_and_a_caller_starts_the_service
  conclude
fi

claim the_package_installs_from_a_file || conclude
claim the_sockets_are_open_and_the_service_waits
claim every_file_has_its_owner_and_mode
claim a_request_through_the_socket_shows_the_upstream_our_certificate || conclude
for name in "${service_claims[@]}"; do claim "$name"; done
if [[ $connections_are_kept == yes ]]; then
  for name in "${kept_claims[@]}"; do claim "$name"; done
fi
claim enabling_the_service_enables_its_sockets
claim an_upgrade_under_load_refuses_and_loses_nobody
if [[ $connections_are_kept == yes ]]; then claim upgrades_under_load_lose_no_kept_connection; fi
claim an_upgrade_starts_nothing_that_was_stopped
claim an_upgrade_keeps_what_was_disabled_disabled
claim a_removal_closes_the_port_and_keeps_the_configuration
claim an_installation_after_a_removal_serves_again
claim a_purge_deletes_what_the_package_wrote_and_no_key
claim a_port_that_is_taken_does_not_fail_the_installation
claim a_policy_against_starting_services_is_respected
claim the_package_installs_and_goes_where_no_systemd_runs

install_deb current >/run/install.log 2>&1 || cat /run/install.log
configure
systemctl reboot
sleep infinity
