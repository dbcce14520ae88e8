package logging

// Event is something that happened to the service, with an identity that stays the same in all versions: the MESSAGE_ID
// of its journal record, and an entry in packaging/journal/mtls-proxy.catalog. Given as a value to a log call
// ("event", logging.Started), it names the record.
type Event uint8

const (
	NoEvent             Event = iota
	Started                   // the first generation serves
	StartRefused              // the configuration or a listener kept the service from starting
	Published                 // a reload put a new generation in service
	ReloadRefused             // a reload changed nothing, because something in it was wrong
	Draining                  // nothing new is accepted; exchanges in progress are being finished
	DrainExpired              // exchanges were cut because drain_timeout was over
	Stopped                   // the end of the process, on request
	ExchangeFinished          // one exchange, answered
	ExchangeFailed            // one exchange that ended in a fault
	FaultRepeated             // the sum of a burst of one fault
	RecordsDropped            // the log could not be written as fast as it grew
	CertificateExpiring       // a certificate has little time left, or none
	AdminUnavailable          // the operators' address could not be bound; the service runs without it
	ProbeFailed               // the self-probe of the watchdog was not answered
	NeedsAttention            // a file or a listener is served though it should be looked at
	EndpointEjected           // an endpoint that failed gets no requests for a time
	EndpointUnhealthy         // an endpoint failed its health checks
	EndpointHealthy           // an endpoint passed its health checks again
	EndpointDrained           // an operator took an endpoint out
	EndpointResumed           // an operator put an endpoint back
	NoEndpointIn              // an operator took the last endpoint out
	BreakerOpened             // requests to an upstream are refused for a time
	BreakerHalfOpened         // some requests probe whether an upstream is back
	BreakerClosed             // requests to the upstream pass again
	ResolveFailed             // a name of an upstream has no address
	ResolveRecovered          // its names have addresses again
	StoreAway                 // the store of the shared rate limit does not answer
	StoreBack                 // the store answers again
	ConnectionsLeft           // idle connections wait for the next process
	ConnectionsAdopted        // connections of the process before go on
	CallersUnknown            // callers cannot be looked up
	SocketUnused              // an inherited socket cannot be used
	AdminFailed               // a request of an operator could not be answered
	ManagerUntold             // the service manager could not be notified
	events
)

// identity is the row of an Event: the name that text and JSON give it, and its MESSAGE_ID.
type identity struct{ name, id string }

func (e Event) identity() identity {
	switch e {
	case Started:
		return identity{"started", "3c3d4e7fa18148a7b76dac79aabf0988"}
	case StartRefused:
		return identity{"start_refused", "ed88b402fc1d46b1809b97060b6fbdb4"}
	case Published:
		return identity{"published", "769e9520283d48e49f4b0e2cf4ba33d2"}
	case ReloadRefused:
		return identity{"reload_refused", "d91461ee5ad14297a49b4ca888125612"}
	case Draining:
		return identity{"draining", "3776aea3c8fc43a38521b98e36db76e6"}
	case DrainExpired:
		return identity{"drain_expired", "0dfa96c7f10446f092b40ebfc71f67a7"}
	case Stopped:
		return identity{"stopped", "b37c02b30e034acd81d65928089ddff4"}
	case ExchangeFinished:
		return identity{"exchange_finished", "2a6c15e6e08142df84c5bf338cc991e1"}
	case ExchangeFailed:
		return identity{"exchange_failed", "e4fed244bd6940a69c7f83c74267d397"}
	case FaultRepeated:
		return identity{"fault_repeated", "401e60af375b41338ab469db77b3d739"}
	case RecordsDropped:
		return identity{"records_dropped", "6ca3818e5d3144649640d09e02c49f5b"}
	case CertificateExpiring:
		return identity{"certificate_expiring", "9d80c60281fd4910b1796c900cb4e38e"}
	case AdminUnavailable:
		return identity{"admin_unavailable", "a89660c1c180467c96ff880b9bfb0e61"}
	case ProbeFailed:
		return identity{"probe_failed", "ef227ebfc13c4199889916bc972735ae"}
	case NeedsAttention:
		return identity{"needs_attention", "16d268816be74024b9aaa96ba3e3e70f"}
	case EndpointEjected:
		return identity{"endpoint_ejected", "cbe45908bd2840c7b6cec11a0726f98e"}
	case EndpointUnhealthy:
		return identity{"endpoint_unhealthy", "5ec24199538f4c2e853386bd82a672b6"}
	case EndpointHealthy:
		return identity{"endpoint_healthy", "4ce89edf5da5429394a82a70269ce208"}
	case EndpointDrained:
		return identity{"endpoint_drained", "380386f4869e4064897dc5d6712b65c7"}
	case EndpointResumed:
		return identity{"endpoint_resumed", "76c62dd81991495c9e84ec141957fa99"}
	case NoEndpointIn:
		return identity{"no_endpoint_in", "54784cafafc6490bb754654dc8bc23d3"}
	case BreakerOpened:
		return identity{"circuit_breaker_opened", "d959aef5a5c8457bb76ce20c2ad4d77d"}
	case BreakerHalfOpened:
		return identity{"circuit_breaker_half_opened", "4ef41d5056c94055a84d8b7252b9cdae"}
	case BreakerClosed:
		return identity{"circuit_breaker_closed", "ee6cd31b5e5f406083b0274aa8b70a5a"}
	case ResolveFailed:
		return identity{"names_unresolved", "98a83cdae6094c25a7eef7a441102590"}
	case ResolveRecovered:
		return identity{"names_resolved", "84ecb5b98d0d4f1ca1709834d73f72f9"}
	case StoreAway:
		return identity{"store_away", "9f71348d3a2f4792824cf915bdee5641"}
	case StoreBack:
		return identity{"store_back", "65700a8f120c41e1816d19a0701e383d"}
	case ConnectionsLeft:
		return identity{"connections_left", "ea7e581cdb3a4fa3b52906862102bfec"}
	case ConnectionsAdopted:
		return identity{"connections_adopted", "56bd715aa06f49a894707ba057bdecbf"}
	case CallersUnknown:
		return identity{"callers_unknown", "422184b412c842249ff3df4967fa4450"}
	case SocketUnused:
		return identity{"socket_unused", "555afffee3ba4f12a1463f40159a9617"}
	case AdminFailed:
		return identity{"admin_failed", "945b9ded15a044658eb02c46762f0cb8"}
	case ManagerUntold:
		return identity{"manager_not_notified", "628d5ea8e73f4026a756fb239c24f6b8"}
	}
	return identity{}
}

// String is the name of e in text and JSON.
func (e Event) String() string { return e.identity().name }

// MessageID is the MESSAGE_ID of e in the journal: 32 hexadecimal digits, "" for NoEvent.
func (e Event) MessageID() string { return e.identity().id }
