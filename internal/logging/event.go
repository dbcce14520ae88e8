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
	}
	return identity{}
}

// String is the name of e in text and JSON.
func (e Event) String() string { return e.identity().name }

// MessageID is the MESSAGE_ID of e in the journal: 32 hexadecimal digits, "" for NoEvent.
func (e Event) MessageID() string { return e.identity().id }
