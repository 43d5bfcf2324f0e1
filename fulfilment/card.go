package fulfilment

import (
	"errors"
	"regexp"
	"unicode"
)

// ReasonNoCards is given where no payment provider is configured.
const ReasonNoCards = "cards are not accepted"

var (
	cardPattern   = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	letterPattern = regexp.MustCompile(`[A-Za-z_]`)
)

// CheckCard refuses what is no token of the payment provider. A card's number must never come here:
// a token has a letter or an underscore in it.
func CheckCard(card string) error {
	if !cardPattern.MatchString(card) || !letterPattern.MatchString(card) {
		return errors.New("card: must be a token of the payment provider, 1 to 64 characters of A-Z " +
			"a-z 0-9 _ - and not only digits")
	}
	return nil
}

// ShortReason makes a reason of the answer of an outside call, which may be any text.
func ShortReason(answer string) string {
	clean := make([]rune, 0, MaxText)
	for _, r := range answer {
		if len(clean) < MaxText && !unicode.IsControl(r) {
			clean = append(clean, r)
		}
	}
	if len(clean) == 0 {
		return "no reason given"
	}
	return string(clean)
}
