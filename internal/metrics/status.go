package metrics

import "strconv"

// statusCodes have series of their own, in ascending order: what HTTP has registered and upstreams really send, and 499 for
// callers that left. An array, so that its length is a constant.
var statusCodes = [...]uint16{
	101, 200, 201, 202, 203, 204, 205, 206, 207,
	300, 301, 302, 303, 304, 307, 308,
	400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417,
	421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 499,
	500, 501, 502, 503, 504, 505, 507, 508, 511,
}

// statusIndex is the position of a code in statusCodes, and their number for one that is not there.
func statusIndex(code int) int {
	lo, hi := 0, len(statusCodes)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if int(statusCodes[mid]) < code {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(statusCodes) && int(statusCodes[lo]) == code {
		return lo
	}
	return len(statusCodes)
}

func statusLabels() []string {
	labels := make([]string, 0, len(statusCodes)+1)
	for _, code := range statusCodes {
		labels = append(labels, strconv.Itoa(int(code)))
	}
	return append(labels, "other")
}
