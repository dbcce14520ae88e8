package admin

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"
)

func TestHashPassword(t *testing.T) {
	for _, tt := range []struct {
		name, password, want string
	}{
		{"a password", "correct horse", ""},
		{"as long as bcrypt takes", strings.Repeat("x", 72), ""},
		{"longer", strings.Repeat("x", 73), "it has 73 bytes; bcrypt takes 72"},
		{"none", "", "it is empty"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := HashPassword([]byte(tt.password))
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("HashPassword() = %v; want it to contain %s", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if cost, err := bcrypt.Cost([]byte(got)); err != nil || cost != 12 {
				t.Errorf("cost %d, %v; want 12", cost, err)
			}
			if err := bcrypt.CompareHashAndPassword([]byte(got), []byte(tt.password)); err != nil {
				t.Errorf("the hash does not fit the password: %v", err)
			}
		})
	}
}

func TestHashesOfApacheAreTaken(t *testing.T) {
	h := strings.Replace(hash(t, "secret"), "$2a$", "$2y$", 1)
	if err := checkHash(h); err != nil {
		t.Fatal(err)
	}
	p := newPasswords(map[string]string{"ops": h}, newGate())
	if got := p.check(t.Context(), "here", "ops", "secret"); got != granted {
		t.Errorf("check() = %v; want granted", got)
	}
}

func TestVerdictsAreRememberedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPasswords(map[string]string{"ops": hash(t, "right")}, newGate())
		if p.check(t.Context(), "here", "ops", "right") != granted || p.check(t.Context(), "here", "ops", "wrong") != denied {
			t.Fatal("the first verdicts are wrong")
		}
		// Another hash shows whether it is asked at all.
		p.hashes["ops"] = []byte(hash(t, "wrong"))
		time.Sleep(deniedFor - time.Second)
		if p.check(t.Context(), "here", "ops", "right") != granted || p.check(t.Context(), "here", "ops", "wrong") != denied {
			t.Error("verdicts were forgotten before their time")
		}
		time.Sleep(time.Second)
		if p.check(t.Context(), "here", "ops", "wrong") != granted {
			t.Errorf("a wrong password was remembered for more than %v", deniedFor)
		}
		time.Sleep(grantedFor) // since it was used the last time
		if p.check(t.Context(), "here", "ops", "right") != denied {
			t.Errorf("a right password was remembered for more than %v", grantedFor)
		}
		time.Sleep(time.Second) // the wrong one gives its slot back
	})
}

func TestVerdictBelongsToUserAndPasswordTogether(t *testing.T) {
	p := newPasswords(map[string]string{"ab": hash(t, "c")}, newGate())
	if got := p.check(t.Context(), "here", "ab", "c"); got != granted {
		t.Fatalf(`check("ab", "c") = %v; want granted`, got)
	}
	if got := p.check(t.Context(), "here", "a", "bc"); got != denied {
		t.Errorf(`check("a", "bc") = %v; want denied`, got)
	}
}

func TestPasswordBeyondWhatBcryptReadsIsDenied(t *testing.T) {
	p := newPasswords(map[string]string{"ops": hash(t, strings.Repeat("x", 72))}, newGate())
	if got := p.check(t.Context(), "here", "ops", strings.Repeat("x", 73)); got != denied {
		t.Errorf("check() of a longer password = %v; want denied", got)
	}
}

func TestUnknownUsersCostWhatKnownOnesDo(t *testing.T) {
	h, err := bcrypt.GenerateFromPassword([]byte("right"), bcrypt.DefaultCost)
	if err != nil {
		t.Fatal(err)
	}
	p := newPasswords(map[string]string{"ops": string(h)}, newGate())
	took := func(user string) time.Duration {
		begin := time.Now()
		if got := p.check(t.Context(), "here", user, "wrong"); got != denied {
			t.Fatalf("check(%q) = %v; want denied", user, got)
		}
		return time.Since(begin)
	}
	known := took("ops")
	p.gate = newGate() // the slot is not free yet
	if unknown := took("nobody"); unknown < known/4 {
		t.Errorf("an unknown user took %v and a known one %v", unknown, known)
	}
	p.gate = newGate()
	if got := p.check(t.Context(), "here", "nobody", "right"); got != denied {
		t.Errorf("an unknown user with the password of a known one = %v; want denied", got)
	}
}

func TestWrongPasswordsKeepTheSlotFromTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPasswords(map[string]string{"ops": hash(t, "right")}, newGate())
		begin := time.Now()
		for _, guess := range []string{"a", "b", "c", "d"} {
			if got := p.check(t.Context(), "here", "ops", guess); got != denied {
				t.Errorf("check(%q) = %v; want denied", guess, got)
			}
		}
		if took := time.Since(begin); took < 3*minPenalty {
			t.Errorf("four guesses took %v; want at least %v", took, 3*minPenalty)
		}
		time.Sleep(minPenalty)
	})
}

func TestFloodOfGuessesIsTurnedAwayAndPushesNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPasswords(map[string]string{"ops": hash(t, "right")}, newGate())
		if got := p.check(t.Context(), "here", "ops", "right"); got != granted {
			t.Fatalf("check() = %v; want granted", got)
		}
		p.gate.enter(t.Context(), "here") // one check is under way, for ever
		var (
			wg       sync.WaitGroup
			mu       sync.Mutex
			verdicts = make(map[verdict]int)
		)
		for i := range 10 * maxWaiting {
			wg.Go(func() {
				v := p.check(context.Background(), "here", "ops", strings.Repeat("x", i%72+1))
				mu.Lock()
				defer mu.Unlock()
				verdicts[v]++
			})
		}
		synctest.Wait()
		mu.Lock()
		if got := verdicts[busy]; got != 9*maxWaiting {
			t.Errorf("%d guesses were turned away at once; want %d", got, 9*maxWaiting)
		}
		mu.Unlock()
		begin := time.Now()
		if got := p.check(t.Context(), "here", "ops", "right"); got != granted || time.Since(begin) != 0 {
			t.Errorf("a user known to be right = %v after %v; want granted at once", got, time.Since(begin))
		}
		wg.Wait()
		if took := time.Since(begin); verdicts[busy] != 10*maxWaiting || took != waitFor {
			t.Errorf("after %v %d were turned away; want all %d after %v", took, verdicts[busy], 10*maxWaiting, waitFor)
		}
	})
}

// The right password is granted behind any number of guesses, and while more of them arrive.
func TestARightPasswordGetsThroughAFloodOfGuesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPasswords(map[string]string{"ops": hash(t, "right")}, newGate())
		var wg sync.WaitGroup
		guess := func(i int) { wg.Go(func() { p.check(context.Background(), "here", "ops", fmt.Sprint("wrong", i)) }) }
		for i := range 40 {
			guess(i)
		}
		synctest.Wait()
		if got := p.check(t.Context(), "here", "ops", "right"); got != granted {
			t.Errorf("check() behind 40 guesses = %v; want granted", got)
		}
		for i := range 40 {
			guess(100 + i)
		}
		time.Sleep(4 * time.Minute)
		if got := p.check(t.Context(), "here", "ops", "right"); got != granted {
			t.Errorf("check() of a password in use = %v", got)
		}
		time.Sleep(4 * time.Minute)
		if v, known := p.remembered(p.digest("ops", "right")); !known || v != granted {
			t.Error("a verdict that is used did not stay")
		}
		wg.Wait()
	})
}

// Guesses that go on to come from elsewhere do not keep a source out.
func TestSourcesOfPasswordsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPasswords(map[string]string{"ops": hash(t, "right")}, newGate())
		var wg sync.WaitGroup
		flood := func(round string) {
			for i := range 10 * maxWaiting {
				wg.Go(func() { p.check(context.Background(), "192.0.2.1", "ops", fmt.Sprint(round, i)) })
			}
			synctest.Wait()
		}
		flood("before")
		var got verdict
		wg.Go(func() { got = p.check(context.Background(), "192.0.2.2", "ops", "right") })
		synctest.Wait()
		flood("after")
		wg.Wait()
		if got != granted {
			t.Errorf("check() from another source in the middle of a flood = %v; want granted", got)
		}
	})
}

func TestVerdictsAreBounded(t *testing.T) {
	p := newPasswords(map[string]string{"ops": hash(t, "right")}, newGate())
	right := p.digest("ops", "right")
	p.remember(right, granted)
	for i := range 3 * maxVerdicts {
		p.remember([32]byte{byte(i), byte(i >> 8)}, denied)
	}
	if len(p.denied) > maxVerdicts {
		t.Errorf("%d verdicts are remembered; want at most %d", len(p.denied), maxVerdicts)
	}
	if v, known := p.remembered(right); !known || v != granted {
		t.Error("guesses pushed out a user")
	}
}
