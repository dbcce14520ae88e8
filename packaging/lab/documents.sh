#!/bin/bash
# shellcheck disable=SC2317 # claims are called by their names
#
# The documents, followed to the letter: what README, docs/ and the man pages tell
# a reader to run is taken out of them by labkit and run as it stands, section by
# section. A claim prepares what its section presumes and looks at the effect. The
# last one fails when a section with commands was not run.
# shellcheck source=packaging/lab/claims.sh
source /lab/claims.sh
# shellcheck source=packaging/lab/service.sh
source /lab/service.sh

site=/root/site # where the reader works
followed=/root/.followed
touch "$followed"

# Sections that only a developer's machine can follow.
not_here=('README.md: Two commands')

# Lines of the others that the lab cannot run: tools and hosts that it lacks.
cannot='^(make packages|dnf |curl -v )'

# follow PAGE SECTION runs what the section says, in $site.
follow() {
  local text
  text=$(/kit/labkit page "/pages/$1" "$2")
  echo "$1: $2" >>"$followed"
  grep --invert-match --extended-regexp "$cannot" <<<"$text" >/root/block
  cat /root/block
  (
    cd "$site"
    sudo() { "$@"; }
    apt() { command apt -qq -y -o Dpkg::Use-Pty=0 "$@"; } # no prompt can be answered
    source /root/block
  )
}

# answered_by_the_bank URL OPTION... sends a request, which has to show our certificate.
answered_by_the_bank() {
  contains answer "$(curl --fail-with-body --silent --show-error --max-time 20 "$@")" "serial=$(</root/serial)"
}

# renew leaves a new certificate in $site.
renew() { /kit/labkit identity /root/ca "$site/client" >/root/serial; }

prepare() {
  mkdir -p "$site"
  ln -sfn /packages/current "$site/dist"
  cp /packages/current/*.deb "$site"
  /kit/labkit ca /root/ca
  cp /root/ca/ca.crt "$site"
  cp /root/ca/server.crt "$site/operators.crt"
  cp /root/ca/server.key "$site/operators.key"
  echo 'correct horse battery staple' >"$site/password"
  renew
  echo '127.0.0.1 api.bank.example ledger.example api.example.net' >>/etc/hosts
  systemd-run --quiet --unit=bank --service-type=exec /kit/labkit upstream --listen 0.0.0.0:443 /root/ca
  within 5 port_is_open 443
}

the_readme_installs_and_configures_a_service_that_reaches_the_bank() {
  prepare
  follow README.md Install
  same service "$(state mtls-proxy.service)" inactive
  follow README.md Configure
  answered_by_the_bank http://localhost:8080/accounts
}

the_readme_rotates_the_certificate() {
  renew
  install -m 640 -g mtls-proxy "$site/client.crt" "$site/client.key" /etc/mtls-proxy/tls/
  follow README.md Rotate
  answered_by_the_bank http://localhost:8080/
}

the_readme_diagnoses() {
  follow README.md Diagnose
  follow docs/operations.md 'Find out what is wrong'
}

operations_installs_and_reloads() {
  useradd ops
  follow docs/operations.md Install
  same service "$(systemctl is-enabled mtls-proxy.service)" enabled
  follow docs/operations.md Reload
  setpriv --reuid=ops --regid=ops --init-groups mtls-proxy reload
}

# certbot renews LINEAGE.
certbot_renews() {
  local live=/etc/letsencrypt/live/$1
  mkdir -p "$live"
  /kit/labkit identity /root/ca "$live/new" >"/root/serial.$1"
  mv "$live/new.crt" "$live/fullchain.pem"
  mv "$live/new.key" "$live/privkey.pem"
  RENEWED_LINEAGE=$live /etc/letsencrypt/renewal-hooks/deploy/mtls-proxy
}

the_hook_for_certbot_takes_the_renewal_of_its_own_certificate_alone() {
  local before
  follow docs/operations.md 'Rotate a certificate'
  before=$(</root/serial)
  certbot_renews www.example.net
  answered_by_the_bank http://localhost:8080/
  certbot_renews client.example.net
  cp /root/serial.client.example.net /root/serial
  [[ $(</root/serial) != "$before" ]]
  answered_by_the_bank http://localhost:8080/
}

the_key_comes_as_a_credential() {
  follow docs/operations.md 'Give the key as a credential'
  answered_by_the_bank http://localhost:8080/
  same mode "$(stat --format='%a' /etc/mtls-proxy/tls/client.key)" 600
  # And back.
  rm /etc/systemd/system/mtls-proxy.service.d/key.conf
  sed -i 's#^key = .*#key = "/etc/mtls-proxy/tls/client.key"#' "$drop_ins/bank.toml"
  chmod 640 /etc/mtls-proxy/tls/client.key
  systemctl daemon-reload
  systemctl restart mtls-proxy
}

an_endpoint_is_taken_out_and_back() {
  ip address add 10.0.0.5/24 dev lo
  ip address add 10.0.0.6/24 dev lo
  cat >"$drop_ins/endpoints.toml" <<'TOML'
[upstream.bank]
urls = ["https://10.0.0.5:8443", "https://10.0.0.6:8443"]
server_name = "api.bank.example"
[[route]]
path_prefix = "/"
upstream = "default"
[[route]]
path_prefix = "/bank"
upstream = "bank"
TOML
  systemctl reload mtls-proxy
  follow docs/operations.md 'Take an endpoint out'
  mtls-proxy endpoint list bank
  rm "$drop_ins/endpoints.toml"
  systemctl reload mtls-proxy
}

the_port_moves_as_operations_and_the_man_page_say() {
  local page
  for page in 'docs/operations.md:Move the port' 'man/mtls-proxy.8:UNDER SYSTEMD'; do
    follow "${page%%:*}" "${page#*:}"
    answered_by_the_bank http://localhost:9080/
    fails port_is_open 8080
    mtls-proxy check >/root/check 2>&1
    cat /root/check
    grep 'http .*127.0.0.1:9080 \[::1\]:9080' /root/check
    fails grep warning /root/check
    mtls-proxy status >/root/status
    fails grep warning /root/status
    # Back to the installed port, by the reflex: the socket alone.
    rm -r /etc/systemd/system/mtls-proxy.socket.d
    systemctl daemon-reload
    fails systemctl restart mtls-proxy.socket
    same sockets "$(state mtls-proxy.socket)" inactive
    answered_by_the_bank http://localhost:9080/
    systemctl restart mtls-proxy.service
    answered_by_the_bank http://localhost:8080/
  done
}

an_address_in_vain_is_told_by_every_command() {
  local said
  printf '[listener.http]\naddress = "127.0.0.1:9080"\n' >"$drop_ins/vain.toml"
  for said in check reload; do
    contains "$said" "$(mtls-proxy "$said" 2>&1)" 'address 127.0.0.1:9080 has no effect: systemd listens on 127.0.0.1:8080 [::1]:8080'
  done
  systemctl reload mtls-proxy
  contains status "$(property mtls-proxy.service StatusText)" 'address 127.0.0.1:9080 has no effect'
  contains 'mtls-proxy status' "$(mtls-proxy status)" 'address 127.0.0.1:9080 has no effect'
  rm "$drop_ins/vain.toml"
  systemctl reload mtls-proxy
}

a_socket_unit_of_its_own_comes_and_goes() {
  groupadd payments
  # The reflex: the unit's file, and then this.
  /kit/labkit page /pages/docs/operations.md 'Add a socket unit' >/root/whole
  sed '/^END OF BLOCK/q' /root/whole >/root/block
  source /root/block
  systemctl daemon-reload
  fails systemctl enable --now payments.socket
  answered_by_the_bank http://localhost:8080/
  systemctl reset-failed

  sed '/^systemctl disable/,$d' /root/whole >/root/block # the second half takes it away again
  source /root/block
  answered_by_the_bank --unix-socket /run/payments.sock http://localhost/
  answered_by_the_bank http://localhost:8080/
  same owner "$(stat --format='%U:%G %a' /run/payments.sock)" 'root:payments 660'
  same warnings "$(mtls-proxy check 2>&1 >/dev/null)" ''

  sed -n '/^systemctl disable/,$p' /root/whole >/root/block
  source /root/block
  echo 'docs/operations.md: Add a socket unit' >>"$followed"
  answered_by_the_bank http://localhost:8080/
  same socket "$(state payments.socket)" inactive
}

the_service_binds_a_listener_and_the_port_is_closed() {
  follow docs/operations.md 'Let the service bind'
  answered_by_the_bank http://127.0.0.1:9090/
  answered_by_the_bank http://localhost:8080/
  follow docs/operations.md 'Close the port'
  answered_by_the_bank http://127.0.0.1:9090/
  fails port_is_open 8080
  rm "$drop_ins/reports.toml"
  systemctl unmask mtls-proxy.socket
  systemctl restart mtls-proxy.service
  answered_by_the_bank http://localhost:8080/
}

a_unix_socket_is_for_its_group() {
  groupadd billing
  printf '[listener.billing]\naddress = "unix:/run/mtls-proxy/billing.sock"\nunix_group = "billing"\n' >"$drop_ins/billing.toml"
  follow docs/configuration.md Examples
  same owner "$(stat --format='%U:%G %a' /run/mtls-proxy/billing.sock)" 'mtls-proxy:billing 660'
  rm "$drop_ins/billing.toml"
  systemctl reload mtls-proxy
}

the_operators_address_moves() {
  follow docs/operations.md "Move the operators' address"
  fails curl --fail --silent --cacert "$site/ca.crt" https://localhost:9443/metrics
  fails port_is_open 8081
  rm "$drop_ins/operators.toml"
  systemctl reload mtls-proxy
  curl --fail --silent --show-error http://127.0.0.1:8081/livez
}

a_service_that_cannot_start_shows_why() {
  systemctl stop mtls-proxy.service
  break_configuration
  fails systemctl start mtls-proxy.service
  systemctl status --no-pager mtls-proxy.service >/root/status || true
  cat /root/status
  grep 'activating (auto-restart)' /root/status
  grep "Status: .*$mistake" /root/status
  journalctl --unit=mtls-proxy.service --lines=20 --no-pager | grep 'start refused'
  mend_configuration
  within 10 answered_by_the_bank http://localhost:8080/
}

the_man_page_configures_the_ledger() {
  mv "$drop_ins/bank.toml" /root/bank.toml
  follow man/mtls-proxy.8 DESCRIPTION
  answered_by_the_bank http://localhost:8080/
  rm "$drop_ins/ledger.toml"
  mv /root/bank.toml "$drop_ins/bank.toml"
  systemctl reload mtls-proxy
}

the_example_of_the_manual_is_sound() {
  /kit/labkit page /pages/man/mtls-proxy.toml.5 EXAMPLE >/etc/mtls-proxy/example.toml
  echo 'man/mtls-proxy.toml.5: EXAMPLE' >>"$followed"
  mv "$drop_ins" /root/conf.d
  mtls-proxy check /etc/mtls-proxy/example.toml
  mv /root/conf.d "$drop_ins"
}

the_log_is_searched() { follow docs/logging.md 'Fields of a request'; }

operations_removes() {
  follow docs/operations.md Remove
  fails test -e /usr/bin/mtls-proxy
  ls -l "$drop_ins/bank.toml" /etc/mtls-proxy/tls/client.key
}

every_section_with_commands_was_run() {
  local page section missing=''
  printf '%s\n' "${not_here[@]}" >>"$followed"
  for page in README.md docs/{operations,configuration,logging,security,metrics,faults}.md man/mtls-proxy.8 man/mtls-proxy.toml.5; do
    while read -r section; do
      if ! grep --quiet --line-regexp --fixed-strings "$page: $section" "$followed"; then
        missing+="$page: $section"$'\n'
      fi
    done < <(/kit/labkit page "/pages/$page")
  done
  same 'sections that no claim runs' "$missing" ''
}

claim the_readme_installs_and_configures_a_service_that_reaches_the_bank || conclude
claim the_readme_rotates_the_certificate
claim the_readme_diagnoses
claim operations_installs_and_reloads
claim the_hook_for_certbot_takes_the_renewal_of_its_own_certificate_alone
claim the_key_comes_as_a_credential
claim an_endpoint_is_taken_out_and_back
claim the_port_moves_as_operations_and_the_man_page_say
claim an_address_in_vain_is_told_by_every_command
claim a_socket_unit_of_its_own_comes_and_goes
claim the_service_binds_a_listener_and_the_port_is_closed
claim a_unix_socket_is_for_its_group
claim the_operators_address_moves
claim a_service_that_cannot_start_shows_why
claim the_man_page_configures_the_ledger
claim the_example_of_the_manual_is_sound
claim the_log_is_searched
claim operations_removes
claim every_section_with_commands_was_run
conclude
