package http1

// Kind says which class of refusal an Error is; whoever answers the caller branches on it.
type Kind uint8

const (
	BadRequest          Kind = iota // a request that breaks the grammar or could be read in two ways: 400
	LineTooLong                     // the request line passes Limits.MaxRequestLine: 414
	HeadTooLarge                    // head or trailer section pass Limits.MaxHead or MaxFields; requests and responses: 431, 502
	VersionNotSupported             // neither HTTP/1.0 nor HTTP/1.1: 505
	CodingNotSupported              // a request's transfer coding other than chunked: 501
	ConnectRefused                  // CONNECT, or a target in authority-form: 405
	TLSHandshake                    // the beginning of one where a request is expected: 400
	ExpectationFailed               // an Expect other than 100-continue: 417
	Malformed                       // a response that breaks the grammar or could be read in two ways: 502
	BadChunk                        // a broken chunked body, of a request (400) or of a response (502, or cut)
)

// Error is why a message was refused. The Errors of this package are made once,
// so returning one allocates nothing.
type Error struct {
	Kind   Kind
	Detail string // fixed text that quotes nothing of the message, fit for the caller and for the log
}

func (e *Error) Error() string { return e.Detail }

// flaw is what is wrong with a message, whichever side sent it.
type flaw uint8

const (
	sound flaw = iota
	flawBlankLines
	flawLineTooLong
	flawHeadTooLarge
	flawTooManyFields
	flawMethod
	flawMethodTooLong
	flawTLS
	flawTarget
	flawTargetForm
	flawAsterisk
	flawStartLine
	flawVersionText
	flawVersion
	flawConnect
	flawBareLF
	flawBareCR
	flawFold
	flawSpaceBeforeColon
	flawFieldName
	flawControl
	flawNoHost
	flawTwoHosts
	flawHost
	flawLengthRepeated
	flawLength
	flawLengthAndCoding
	flawCodingRepeated
	flawCodingIn10
	flawCoding
	flawCodingUnknown
	flawConnection
	flawConnectionLong
	flawUpgrade
	flawExpect
	flawRepeated
	flawMaxForwards
	flawStatus
	flawInterimBody
	flawInterims
	flawChunkSize
	flawChunkSizeRange
	flawChunkExtension
	flawChunkEnd
	flawTrailers
	flawTrailersTooLarge
	flawCount
)

// flaws gives each flaw its text and the Kind it has in a request; in a response only size
// and chunks have a Kind of their own.
var flaws = [flawCount]Error{
	flawBlankLines:       {BadRequest, "more than one empty line before the request"},
	flawLineTooLong:      {LineTooLong, "the request line is longer than the limit"},
	flawHeadTooLarge:     {HeadTooLarge, "the head is larger than the limit"},
	flawTooManyFields:    {HeadTooLarge, "the head has more fields than the limit, which is one for each 32 bytes of the largest head"},
	flawMethod:           {BadRequest, "the method is not a token followed by one space"},
	flawMethodTooLong:    {BadRequest, "the method is longer than 32 bytes"},
	flawTLS:              {TLSHandshake, "the first byte is that of a TLS handshake"},
	flawTarget:           {BadRequest, "the request target holds a byte that must be percent-encoded, or a fragment"},
	flawTargetForm:       {BadRequest, "the request target is neither a path nor an http or https URL"},
	flawAsterisk:         {BadRequest, "the request target * goes with OPTIONS only"},
	flawStartLine:        {BadRequest, "the first line is not HTTP/1.1"},
	flawVersionText:      {BadRequest, "the request line does not end in an HTTP version"},
	flawVersion:          {VersionNotSupported, "the HTTP version is neither 1.0 nor 1.1"},
	flawConnect:          {ConnectRefused, "CONNECT and targets in authority-form are not served here"},
	flawBareLF:           {BadRequest, "a line ends in LF without CR"},
	flawBareCR:           {BadRequest, "a CR is not followed by LF"},
	flawFold:             {BadRequest, "a field line begins with white space"},
	flawSpaceBeforeColon: {BadRequest, "white space stands between a field's name and its colon"},
	flawFieldName:        {BadRequest, "a field's name is not a token followed by a colon"},
	flawControl:          {BadRequest, "a field's value holds a control character"},
	flawNoHost:           {BadRequest, "an HTTP/1.1 request without Host"},
	flawTwoHosts:         {BadRequest, "more than one Host field"},
	flawHost:             {BadRequest, "the host is not a name, an IPv4 address or an IPv6 address in brackets, with or without port"},
	flawLengthRepeated:   {BadRequest, "more than one Content-Length"},
	flawLength:           {BadRequest, "Content-Length is not a decimal number in range"},
	flawLengthAndCoding:  {BadRequest, "Content-Length and Transfer-Encoding in one message"},
	flawCodingRepeated:   {BadRequest, "more than one Transfer-Encoding field"},
	flawCodingIn10:       {BadRequest, "Transfer-Encoding in an HTTP/1.0 message"},
	flawCoding:           {BadRequest, "Transfer-Encoding is malformed, or chunked is not its last coding"},
	flawCodingUnknown:    {CodingNotSupported, "a transfer coding other than chunked"},
	flawConnection:       {BadRequest, "Connection is not a list of tokens"},
	flawConnectionLong:   {BadRequest, "Connection lists more than 64 options"},
	flawUpgrade:          {BadRequest, "Upgrade is not a list of protocols"},
	flawExpect:           {ExpectationFailed, "an expectation other than 100-continue"},
	flawRepeated:         {BadRequest, "a field that may come once was repeated"},
	flawMaxForwards:      {BadRequest, "Max-Forwards is not a decimal number"},
	flawStatus:           {BadRequest, "the status line is malformed"},
	flawInterimBody:      {BadRequest, "an interim response announces a body"},
	flawInterims:         {BadRequest, "more than 1000 interim responses before the final one"},
	flawChunkSize:        {BadChunk, "a chunk size is not a hexadecimal number followed by CRLF"},
	flawChunkSizeRange:   {BadChunk, "a chunk size is out of range"},
	flawChunkExtension:   {BadChunk, "chunk extensions are malformed or too long"},
	flawChunkEnd:         {BadChunk, "a chunk does not end where its size says"},
	flawTrailersTooLarge: {HeadTooLarge, "the trailer section is larger than the limit"},
	flawTrailers:         {BadChunk, "the trailer section is malformed"},
}

// responseFlaws is flaws as told of responses.
var responseFlaws = func() (out [flawCount]Error) {
	for i, e := range flaws {
		switch e.Kind {
		case HeadTooLarge, BadChunk:
		default:
			e.Kind = Malformed
		}
		out[i] = e
	}
	return out
}()
