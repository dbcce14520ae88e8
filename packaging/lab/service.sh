# service.sh - the claims about the running service that hold whatever put it
# there, and what they need; sourced by deb.sh and rpm.sh. /kit/labkit is the
# program in labkit/.
# shellcheck shell=bash

url=http://localhost:8080/v1/accounts
drop_ins=/etc/mtls-proxy/conf.d
amended=/run/systemd/system/mtls-proxy.service.d

# new_identity puts another client certificate into place; /root/serial has its
# serial.
new_identity() {
  /kit/labkit identity /root/ca /root/client >/root/serial
  install -m 0640 -g mtls-proxy /root/client.{crt,key} /etc/mtls-proxy/tls/
}

configure() {
  mkdir -p "$drop_ins" /etc/mtls-proxy/tls
  [[ -e /root/ca ]] || /kit/labkit ca /root/ca
  install -m 0640 -g mtls-proxy /root/ca/ca.crt /etc/mtls-proxy/tls/
  new_identity
  cat >"$drop_ins/lab.toml" <<'TOML'
[identity.default]
certificate = "/etc/mtls-proxy/tls/client.crt"
key = "/etc/mtls-proxy/tls/client.key"

[trust.default]
ca = "../tls/ca.crt"

[upstream.default]
url = "https://localhost:8443"

[rate_limit]
requests_per_second = 0
TOML
}

start_upstream() {
  if port_is_open 8443; then return; fi
  systemd-run --quiet --unit=upstream --service-type=exec /kit/labkit upstream /root/ca
  within 5 port_is_open 8443
}

port_is_open() { [[ $(ss --no-header --listening --tcp --numeric "sport = :$1") ]]; }

# seen_serial prints the serial that the upstream sees of a new connection.
seen_serial() {
  local body
  body=$(curl --fail-with-body --silent --show-error --max-time 20 "$url")
  [[ $body =~ serial=([0-9a-f]+) ]] || refute "no serial in: $body"
  echo "${BASH_REMATCH[1]}"
}

# under_load [OPTION...] -- COMMAND... runs the command while callers send
# requests, all of which must be answered. /root/report has what they saw.
under_load() {
  local options=() callers status
  while [[ $1 != -- ]]; do
    options+=("$1")
    shift
  done
  shift
  /kit/labkit load --url "$url" "${options[@]}" >/root/report &
  callers=$!
  sleep 1
  "$@"
  sleep 1
  kill -TERM "$callers"
  status=0
  wait "$callers" || status=$?
  cat /root/report
  same 'exit status of the callers' "$status" 0
  jq --exit-status '.requests > 100 and .failed == 0 and .refused == 0' /root/report
}

# hold URL opens a connection of a caller of its own, which asks whenever `ask`
# says so; what comes of it is in /root/held. It ends with the claim.
hold() {
  exec {asking}> >(exec /kit/labkit hold --url "$1" >/root/held 2>&1)
  holder=$!
  : >/root/held
}

ask() {
  local before
  before=$(answers)
  echo >&"$asking" || refute "the connection is gone: $(</root/held)"
  within 30 answers_are $((before + 1))
}
answers() { grep --count --line-regexp answered /root/held || true; }
answers_are() { [[ $(answers) == "$1" ]]; }
is_hung_up() { grep --line-regexp 'hung up' /root/held; }

# nothing_is_stored holds when systemd has no connection of ours.
nothing_is_stored() { [[ $(property mtls-proxy.service NFileDescriptorStore) == 0 ]]; }

# amend changes the unit and starts the service with it, until the claim ends.
amend() { # LINE...
  trap 'rm -r "$amended"; systemctl daemon-reload; systemctl restart mtls-proxy.service' EXIT
  mkdir -p "$amended"
  printf '%s\n' '[Service]' "$@" >"$amended/lab.conf"
  systemctl daemon-reload
  systemctl restart mtls-proxy.service
}

# break_configuration puts a mistake into line 2 of a drop-in.
break_configuration() { printf '[upstream.default]\nurll = "https://localhost:8443"\n' >"$drop_ins/mistake.toml"; }
mend_configuration() { rm "$drop_ins/mistake.toml"; }
mistake=conf.d/mistake.toml:2

# ---- claims ---------------------------------------------------------------

a_request_through_the_socket_shows_the_upstream_our_certificate() {
  configure
  start_upstream
  mtls-proxy check
  systemctl start mtls-proxy.socket
  same service "$(state mtls-proxy.service)" inactive
  same serial "$(seen_serial)" "$(</root/serial)"
  same service "$(state mtls-proxy.service)" active
}

both_halves_of_localhost_answer() {
  local address
  for address in 127.0.0.1 '[::1]'; do
    curl --fail --silent --show-error --max-time 10 "http://$address:8080/"
  done
}

the_status_line_has_live_facts() {
  local text
  text=$(property mtls-proxy.service StatusText)
  echo "$text"
  [[ $text =~ [0-9] ]]
}

operators_find_health_and_metrics() {
  curl --fail --silent --show-error http://127.0.0.1:8081/livez
  curl --fail --silent --show-error http://127.0.0.1:8081/readyz
  curl --fail --silent --show-error http://127.0.0.1:8081/metrics >/root/metrics
  grep '^mtls_proxy_requests_total' /root/metrics
}

the_control_socket_is_for_root_and_its_group_alone() {
  mtls-proxy status
  setpriv --reuid=nobody --regid=nogroup --groups=mtls-proxy-admin mtls-proxy status
  setpriv --reuid=nobody --regid=nogroup --groups=mtls-proxy-admin mtls-proxy reload
  fails setpriv --reuid=nobody --regid=nogroup --clear-groups mtls-proxy status
  fails setpriv --reuid=nobody --regid=nogroup --clear-groups mtls-proxy reload
}

a_reload_presents_the_new_certificate() {
  local old
  old=$(seen_serial)
  new_identity
  same 'serial before the reload' "$(seen_serial)" "$old"
  systemctl reload mtls-proxy
  same 'serial after the reload' "$(seen_serial)" "$(</root/serial)"
}

a_hangup_alone_reloads_as_well() {
  new_identity
  systemctl kill --signal=HUP --kill-whom=main mtls-proxy.service
  within 10 sees_new_serial
}
sees_new_serial() { [[ $(seen_serial) == "$(</root/serial)" ]]; }

a_refused_reload_names_file_and_line_and_requests_go_on() {
  local pid said
  pid=$(property mtls-proxy.service MainPID)
  break_configuration
  fails systemctl reload mtls-proxy
  contains 'status line' "$(property mtls-proxy.service StatusText)" "$mistake"
  within 5 journal_names_mistake
  said=$(fails mtls-proxy reload 2>&1)
  contains 'what the command says' "$said" "$mistake"
  same service "$(state mtls-proxy.service)" active
  same 'main process' "$(property mtls-proxy.service MainPID)" "$pid"
  same serial "$(seen_serial)" "$(</root/serial)"
  mend_configuration
  systemctl reload mtls-proxy
}
journal_names_mistake() { journalctl --boot --unit=mtls-proxy.service --output=cat | grep --fixed-strings "$mistake"; }

five_reloads_under_load_lose_no_new_connection() {
  under_load -- five_reloads
  jq --exit-status --arg serial "$(</root/serial)" '.serials | length >= 5 and has($serial)' /root/report
}

five_reloads_under_load_lose_no_kept_connection() {
  under_load --keep-alive -- five_reloads
  # Not one of the callers had to connect anew.
  jq --exit-status '.connections == 8' /root/report
}

five_reloads() {
  for _ in 1 2 3 4 5; do
    new_identity
    systemctl reload mtls-proxy
    sleep 0.3
  done
}

five_restarts_under_load_refuse_and_lose_nobody() {
  local socket
  socket=$(property mtls-proxy.socket InvocationID)
  under_load -- five_restarts
  same 'the run of the sockets' "$(property mtls-proxy.socket InvocationID)" "$socket"
}

five_restarts() {
  for _ in 1 2 3 4 5; do
    systemctl restart mtls-proxy.service
    sleep 0.5
  done
}

a_stop_lets_the_request_in_progress_finish() {
  local caller
  curl --fail --silent --show-error --max-time 20 "$url?wait=3s" >/root/slow &
  caller=$!
  sleep 1
  systemctl stop mtls-proxy.service
  wait "$caller"
  cat /root/slow
  contains answer "$(</root/slow)" serial=
}

reload_and_status_tell_that_the_service_is_stopped() {
  local said command
  systemctl stop mtls-proxy.service
  for command in reload status; do
    said=$(fails mtls-proxy "$command" 2>&1)
    contains "mtls-proxy $command" "$said" 'not running'
  done
  same service "$(state mtls-proxy.service)" inactive
}

a_caller_who_meets_a_bad_configuration_is_answered_once_it_is_mended() {
  local caller
  systemctl stop mtls-proxy.service
  break_configuration
  fails systemctl start mtls-proxy.service
  curl --fail --silent --show-error --max-time 60 "$url" >/root/patient &
  caller=$!
  sleep 7 # several starts that fail
  same sockets "$(state mtls-proxy.socket)" active
  journal_names_mistake
  kill -0 "$caller"
  mend_configuration
  wait "$caller"
  contains answer "$(</root/patient)" "serial=$(</root/serial)"
}

a_killed_service_comes_back() {
  local pid
  seen_serial
  pid=$(property mtls-proxy.service MainPID)
  kill -KILL "$pid"
  same serial "$(seen_serial)" "$(</root/serial)" # waited in the socket meanwhile
  [[ $(property mtls-proxy.service MainPID) != "$pid" ]]
}

a_process_that_hangs_is_restarted_by_the_watchdog() {
  local pid
  # Shorter than in the unit, to spare a minute of waiting.
  mkdir -p /run/systemd/system/mtls-proxy.service.d
  printf '[Service]\nWatchdogSec=4s\n' >/run/systemd/system/mtls-proxy.service.d/watchdog.conf
  systemctl daemon-reload
  systemctl restart mtls-proxy.service
  sleep 6 # it pings
  pid=$(property mtls-proxy.service MainPID)
  same 'restarts while it is well' "$(property mtls-proxy.service NRestarts)" 0
  kill -STOP "$pid"
  # Who comes now waits in the socket. systemd sends SIGABRT and continues the
  # process, which may accept him in the moment before it dies: he is reset
  # then, and asks again. Nobody is refused.
  answered_or_reset || answered_or_reset
  [[ $(property mtls-proxy.service MainPID) != "$pid" ]]
  journalctl --boot --unit=mtls-proxy.service --output=cat >/root/journal
  grep --ignore-case 'watchdog timeout' /root/journal
  grep '^goroutine [0-9]' /root/journal # where it hung
  rm -r /run/systemd/system/mtls-proxy.service.d
  systemctl daemon-reload
  systemctl restart mtls-proxy.service
}

# answered_or_reset sends a request, which is answered with the serial, or fails
# because the connection was accepted and lost.
answered_or_reset() {
  local body status=0
  body=$(curl --fail-with-body --silent --show-error --max-time 20 "$url") || status=$?
  case $status in
  0) contains answer "$body" "serial=$(</root/serial)" ;;
  52 | 56) return 1 ;; # closed without an answer, reset
  *) refute "curl ended with status $status: $body" ;;
  esac
}

a_key_may_come_as_a_credential_that_only_systemd_can_read() {
  local seen reload=0
  mkdir -p /run/systemd/system/mtls-proxy.service.d
  printf '[Service]\nLoadCredential=client.key:/root/client.key\n' >/run/systemd/system/mtls-proxy.service.d/key.conf
  rm /etc/mtls-proxy/tls/client.key
  sed --in-place=.orig 's#^key = .*#key = "credential:client.key"#' "$drop_ins/lab.toml"
  systemctl daemon-reload
  systemctl restart mtls-proxy.service || true
  seen=$(seen_serial) || true
  systemctl reload mtls-proxy || reload=$?

  mv "$drop_ins/lab.toml.orig" "$drop_ins/lab.toml"
  install -m 0640 -g mtls-proxy /root/client.key /etc/mtls-proxy/tls/
  rm -r /run/systemd/system/mtls-proxy.service.d
  systemctl daemon-reload
  systemctl restart mtls-proxy.service
  same serial "$seen" "$(</root/serial)"
  same 'exit status of the reload' "$reload" 0
}

a_fault_is_in_the_journal_field_by_field() {
  local problem
  systemctl stop upstream.service
  problem=$(curl --silent --max-time 10 "$url")
  start_upstream
  echo "$problem"
  same 'fault in the answer' "$(jq --raw-output .fault <<<"$problem")" connection_refused
  within 5 fault_is_logged "$(jq --raw-output .request_id <<<"$problem")"
}

fault_is_logged() { # REQUEST_ID
  journalctl --boot --unit=mtls-proxy.service --output=json | jq --slurp --exit-status --arg id "$1" '
    [.[] | select(.MTLS_REQUEST_ID == $id and .MTLS_FAULT == "connection_refused")] as $records
    | ($records | length == 1)
      and all("MTLS_LISTENER", "MTLS_ROUTE", "MTLS_UPSTREAM", "MTLS_STATUS", "MTLS_DURATION_USEC",
              "MTLS_GENERATION", "MESSAGE_ID", "PRIORITY"; in($records[0]))
      and $records[0].MTLS_LISTENER == "http" and $records[0].MTLS_STATUS == "502"'
}

the_journal_explains_its_records() {
  local id
  id=$(journalctl --boot --unit=mtls-proxy.service --output=json |
    jq --raw-output 'select(.MTLS_FAULT == "connection_refused") | .MESSAGE_ID' | head -n 1)
  journalctl --list-catalog "$id"
  journalctl --boot --unit=mtls-proxy.service --catalog --no-pager | grep 'Defined-By: mtls-proxy'
}

a_journal_that_hangs_slows_no_request() {
  local journald status=0
  printf '[log]\naccess = "all"\n' >"$drop_ins/log.toml"
  systemctl reload mtls-proxy
  journald=$(property systemd-journald.service MainPID)
  kill -STOP "$journald"
  # Some 2,000 records; a socket to the journal takes a few hundred.
  /kit/labkit load --url "$url" --for 5s --timeout 10s >/root/report || status=$?
  kill -CONT "$journald"
  rm "$drop_ins/log.toml"
  systemctl reload mtls-proxy
  cat /root/report
  same 'exit status of the callers' "$status" 0
  jq --exit-status '.requests > 1000 and .failed == 0 and .max_ms < 1000' /root/report
}

units_and_users_have_rates_of_their_own() {
  local socket=/run/mtls-proxy/lab.sock
  trap 'rm -f "$drop_ins/rates.toml"; systemctl restart mtls-proxy.service' EXIT
  cat >"$drop_ins/rates.toml" <<TOML
[listener.lab]
address = "unix:$socket"
[[route]]
path_prefix = "/v1/units"
rate_limit = { requests_per_second = 0.001, burst = 1, key = "unit" }
[[route]]
path_prefix = "/v1/users"
rate_limit = { requests_per_second = 0.001, burst = 1, key = "user" }
[[route]]
TOML
  systemctl restart mtls-proxy.service
  same 'the first of billing' "$(called_by billing.service /v1/units)" 200
  same 'the second of billing' "$(called_by billing.service /v1/units)" 429
  same 'the third of billing' "$(called_by billing.service /v1/units --property=DynamicUser=yes)" 429
  same 'the first of reports' "$(called_by reports.service /v1/units)" 200
  same 'the second of reports' "$(called_by reports.service /v1/units)" 429
  same 'the first of billing as root' "$(called_by billing.service /v1/users)" 200
  same 'the first of reports as root' "$(called_by reports.service /v1/users)" 429
  same 'the first as another user' "$(called_by billing.service /v1/users --uid=daemon)" 200
  same 'the second as another user' "$(called_by reports.service /v1/users --uid=daemon)" 429
  # The same callers on a Unix socket, and one that is new.
  within 5 test -S "$socket"
  through="--unix-socket $socket"
  same 'the fourth of billing' "$(called_by billing.service /v1/units)" 429
  same 'the first of another' "$(called_by another.service /v1/units)" 200
  same 'the second of another' "$(called_by another.service /v1/units)" 429
  same 'the third as root' "$(called_by another.service /v1/users)" 429
  within 5 callers_are_logged
  curl --fail --silent --show-error http://127.0.0.1:8081/metrics >/root/metrics
  [[ $(grep '^mtls_proxy_unknown_callers_total' /root/metrics | grep --invert-match --count ' 0$') == 0 ]]
}

without_netlink_callers_share_a_rate_and_the_journal_says_why() {
  amend RestrictAddressFamilies= 'RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6'
  trap 'rm -rf "$amended" "$drop_ins/rates.toml"; systemctl daemon-reload; systemctl restart mtls-proxy.service' EXIT
  printf '[[route]]\nrate_limit = { requests_per_second = 0.001, burst = 1, key = "unit" }\n' >"$drop_ins/rates.toml"
  systemctl restart mtls-proxy.service
  same 'the first of billing' "$(called_by billing.service /v1/units)" 200
  same 'the first of reports' "$(called_by reports.service /v1/units)" 429
  within 5 blindness_is_logged
  curl --fail --silent --show-error http://127.0.0.1:8081/metrics | grep '^mtls_proxy_unknown_callers_total.*fact="unit".* 2$'
}
blindness_is_logged() {
  journalctl --boot --unit=mtls-proxy.service --output=cat | grep 'callers could not be looked up.*AF_NETLINK'
}

# called_by UNIT PATH [OPTION...] prints the status that a caller in the unit got.
called_by() {
  local unit=$1 path=$2
  shift 2
  # shellcheck disable=SC2086 # $through is several words, or none
  systemd-run --quiet --pipe --wait --collect --unit="$unit" "$@" \
    curl --silent --max-time 20 --output /dev/null --write-out '%{http_code}' ${through-} "http://localhost:8080$path"
}

callers_are_logged() {
  journalctl --boot --unit=mtls-proxy.service --output=json | jq --slurp --exit-status '
    any(.MTLS_CALLER_UNIT == "billing.service" and .MTLS_LISTENER == "http" and (.MTLS_CALLER | startswith("127.0.0.1:") or startswith("[::1]:")))
      and any(.MTLS_CALLER_UNIT == "another.service" and .MTLS_LISTENER == "lab" and .MTLS_CALLER == "user root")'
}

socket_owner() { stat --format='%U:%G %a' "/run/mtls-proxy/$1"; }

a_listener_beside_the_installed_socket_needs_no_table_for_that() {
  trap 'rm -f "$drop_ins/beside.toml"; systemctl restart mtls-proxy.service' EXIT
  printf '[listener.payments]\naddress = "127.0.0.1:8091"\n' >"$drop_ins/beside.toml"
  mtls-proxy check >/root/check
  grep 'http .*127.0.0.1:8080 \[::1\]:8080 .*from systemd' /root/check
  systemctl reload mtls-proxy
  seen_serial
  curl --fail --silent --show-error http://127.0.0.1:8091/
  systemctl restart mtls-proxy
  seen_serial
  curl --fail --silent --show-error http://127.0.0.1:8091/
}

a_unix_socket_belongs_to_its_group_and_not_to_those_who_may_reload() {
  local said
  trap 'rm -f "$drop_ins/unix.toml"; gpasswd --delete mtls-proxy lab-billing; groupdel lab-billing; systemctl restart mtls-proxy.service' EXIT
  groupadd lab-billing
  printf '[listener.billing]\naddress = "unix:/run/mtls-proxy/billing.sock"\nunix_group = "lab-billing"\n' >"$drop_ins/unix.toml"
  printf '[listener.own]\naddress = "unix:/run/mtls-proxy/own.sock"\n' >>"$drop_ins/unix.toml"
  said=$(fails mtls-proxy check 2>&1)
  contains check "$said" 'usermod -aG lab-billing mtls-proxy && systemctl restart mtls-proxy'
  usermod -aG lab-billing mtls-proxy && systemctl restart mtls-proxy
  mtls-proxy check
  same billing.sock "$(socket_owner billing.sock)" 'mtls-proxy:lab-billing 660'
  same own.sock "$(socket_owner own.sock)" 'mtls-proxy:mtls-proxy 660'
  same admin.sock "$(socket_owner admin.sock)" 'mtls-proxy:mtls-proxy-admin 660'
  as_nobody_in lab-billing curl --fail --silent --show-error --unix-socket /run/mtls-proxy/billing.sock http://localhost/
  fails as_nobody_in mtls-proxy-admin curl --fail --silent --unix-socket /run/mtls-proxy/billing.sock http://localhost/
  fails as_nobody_in mtls-proxy-admin curl --fail --silent --unix-socket /run/mtls-proxy/own.sock http://localhost/
}
as_nobody_in() { # GROUP COMMAND...
  local group=$1
  shift
  setpriv --reuid=nobody --regid=nogroup --groups="$group" "$@"
}

a_socket_that_the_sandbox_forbids_is_found_by_check() {
  local said
  trap 'rm -f "$drop_ins/elsewhere.toml"' EXIT
  printf '[listener.b]\naddress = "unix:/run/b.sock"\n' >"$drop_ins/elsewhere.toml"
  said=$(fails mtls-proxy check 2>&1)
  contains check "$said" 'write "unix:/run/mtls-proxy/b.sock"'
}

# Connections that are kept over a restart. Those on which an exchange was in
# progress may end with an announced last answer; there every caller had its
# answer and knows. No idle one may end.

twenty_restarts_under_load_lose_no_kept_connection() {
  seen_serial
  under_load --keep-alive --workers 32 -- twenty_restarts
  jq --exit-status '.closed_idle == 0 and .connections <= 32 + .announced and .announced < 20 * 32 / 2' /root/report
  within 5 nothing_is_stored
}

twenty_restarts() {
  for _ in {1..20}; do
    systemctl restart mtls-proxy.service
    sleep 0.3
  done
}

more_kept_connections_than_the_store_holds_end_without_loss() {
  amend FileDescriptorStoreMax=8 Environment=FDSTORE=8 # from 254 on, systemd sets that itself
  # A slow pace: who sends in the instant in which a connection ends would lose.
  under_load --keep-alive --workers 32 --every 200ms -- five_restarts
  # 8 survive each restart.
  jq --exit-status '.connections <= 32 + 5 * (32 - 8) + .announced' /root/report
}

a_caller_who_leaves_during_a_restart_is_forgotten() {
  amend ExecStartPre='+/bin/sleep 2'
  under_load --keep-alive -- restart_while_a_caller_leaves
  jq --exit-status '.closed_idle == 0 and .connections <= 8 + .announced' /root/report
  within 5 nothing_is_stored
  same 'connections that nobody closes' "$(ss --no-header --tcp state close-wait 'sport = :8080')" ''
}

restart_while_a_caller_leaves() {
  hold "$url"
  ask
  systemctl restart --no-block mtls-proxy.service
  within 10 substate_is start-pre
  fails nothing_is_stored
  kill -KILL "$holder"
  within 10 substate_is running
}
substate_is() { [[ $(property mtls-proxy.service SubState) == "$1" ]]; }

a_restart_without_its_listener_hangs_up_on_a_caller() {
  trap 'rm -f "$drop_ins/extra.toml"' EXIT
  printf '[listener.extra]\naddress = "127.0.0.1:8090"\n' >"$drop_ins/extra.toml"
  systemctl restart mtls-proxy.service
  hold http://127.0.0.1:8090/v1/accounts
  ask
  systemctl restart mtls-proxy.service
  ask # the listener is there still, although this socket is our own
  rm "$drop_ins/extra.toml"
  systemctl restart mtls-proxy.service
  within 5 is_hung_up
  within 5 nothing_is_stored
}

a_kept_connection_waits_until_a_configuration_is_mended() {
  seen_serial
  hold "$url"
  ask
  trap 'rm -f "$drop_ins/mistake.toml"' EXIT
  break_configuration
  fails systemctl restart mtls-proxy.service
  sleep 5 # several starts that fail
  mend_configuration
  ask
}

a_stop_hangs_up_on_idle_callers() {
  seen_serial
  hold "$url"
  ask
  systemctl stop mtls-proxy.service
  within 5 is_hung_up
}

# upgrade_keeps_connections COMMAND... upgrades, to and fro.
upgrade_keeps_connections() {
  local pid
  seen_serial
  pid=$(property mtls-proxy.service MainPID)
  under_load --keep-alive --workers 32 -- "$@"
  jq --exit-status '.closed_idle == 0 and .connections <= 32 + .announced and .announced < 2 * 32' /root/report
  [[ $(property mtls-proxy.service MainPID) != "$pid" ]]
  within 5 nothing_is_stored
}

the_units_are_without_fault() {
  systemd-analyze verify --man=no /usr/lib/systemd/system/mtls-proxy.{service,socket} 2>&1 | tee /root/verify
  # PrivateUsers=identity came with 257.
  if [[ $LAB_SUITE == bookworm ]]; then sed -i '/boolean value, ignoring: identity/d' /root/verify; fi
  same complaints "$(</root/verify)" ''
}

the_service_is_exposed_to_1_4_at_most() {
  local most=12
  # Without PrivateUsers=identity, which came with 257.
  if [[ $LAB_SUITE == bookworm ]]; then most=14; fi
  systemd-analyze security --no-pager --threshold="$most" mtls-proxy.service | tail -n 1
}

# shellcheck disable=SC2034 # the scripts that source this use it
service_claims=( # all but the first, which the others need
  both_halves_of_localhost_answer
  the_status_line_has_live_facts
  operators_find_health_and_metrics
  the_control_socket_is_for_root_and_its_group_alone
  a_reload_presents_the_new_certificate
  a_hangup_alone_reloads_as_well
  a_refused_reload_names_file_and_line_and_requests_go_on
  five_reloads_under_load_lose_no_new_connection
  five_reloads_under_load_lose_no_kept_connection
  five_restarts_under_load_refuse_and_lose_nobody
  a_stop_lets_the_request_in_progress_finish
  reload_and_status_tell_that_the_service_is_stopped
  a_caller_who_meets_a_bad_configuration_is_answered_once_it_is_mended
  a_killed_service_comes_back
  a_process_that_hangs_is_restarted_by_the_watchdog
  a_key_may_come_as_a_credential_that_only_systemd_can_read
  a_fault_is_in_the_journal_field_by_field
  the_journal_explains_its_records
  a_journal_that_hangs_slows_no_request
  units_and_users_have_rates_of_their_own
  without_netlink_callers_share_a_rate_and_the_journal_says_why
  a_listener_beside_the_installed_socket_needs_no_table_for_that
  a_unix_socket_belongs_to_its_group_and_not_to_those_who_may_reload
  a_socket_that_the_sandbox_forbids_is_found_by_check
  the_units_are_without_fault
  the_service_is_exposed_to_1_4_at_most
)

# Claims about connections that are kept over a restart, without those about
# upgrades. They run once this is "yes".
# shellcheck disable=SC2034 # likewise
connections_are_kept=yes
# shellcheck disable=SC2034 # likewise
kept_claims=(
  twenty_restarts_under_load_lose_no_kept_connection
  more_kept_connections_than_the_store_holds_end_without_loss
  a_caller_who_leaves_during_a_restart_is_forgotten
  a_restart_without_its_listener_hangs_up_on_a_caller
  a_kept_connection_waits_until_a_configuration_is_mended
  a_stop_hangs_up_on_idle_callers
)
