package topology

import (
	"errors"
	"fmt"
)

// Validate joins all faults: names that do not fit, a type with no publisher or with two, an undo
// of what no service does, a deadline that no payload can set, a call or an answer that is not
// declared.
func (t Topology) Validate() error {
	var errs []error
	if !namePattern.MatchString(t.Name) {
		errs = append(errs, fmt.Errorf("topology name %q does not match %s", t.Name, namePattern))
	}
	if !urnPattern.MatchString(t.SchemaPrefix()) {
		errs = append(errs, fmt.Errorf("the prefix of schemas %q does not match %s", t.SchemaPrefix(),
			urnPattern))
	}
	publisher := map[string]string{}
	seen := map[string]bool{}
	for _, s := range t.Services {
		if !namePattern.MatchString(s.Name) || seen[s.Name] {
			errs = append(errs, fmt.Errorf("service name %q is not unique or does not match %s", s.Name,
				namePattern))
		}
		seen[s.Name] = true
		for _, eventType := range s.Publishes() {
			if !isType(eventType) {
				errs = append(errs, fmt.Errorf("%s publishes %q, which is no event type", s.Name, eventType))
			}
			if other, ok := publisher[eventType]; ok {
				errs = append(errs, fmt.Errorf("%s is published by %s and by %s", eventType, other, s.Name))
			}
			publisher[eventType] = s.Name
		}
	}
	for _, s := range t.Services {
		errs = append(errs, s.validate(publisher)...)
	}
	return errors.Join(errs...)
}

func isType(eventType string) bool {
	return typePattern.MatchString(eventType) && len(eventType) <= maxRoutingKey
}

func (s Service) validate(publisher map[string]string) (errs []error) {
	private := map[string]string{} // the types of commands and calls, and what they do
	for _, c := range s.Commands {
		errs = append(errs, s.validateCommand(c)...)
		if c.Type != "" {
			errs = append(errs, s.validateType(c.Does, c.Type, publisher, private)...)
		}
	}
	for _, c := range s.Calls {
		errs = append(errs, s.validateType(c.Does, c.Type, publisher, private)...)
		for _, answer := range c.Answers {
			if _, ok := s.Command(answer); !ok {
				errs = append(errs, fmt.Errorf("%s: %s is answered by %q, which is the type of no command of "+
					"%s", s.Name, c.Does, answer, s.Name))
			}
		}
	}
	handled := map[string]bool{}
	for _, r := range s.Reacts {
		if _, ok := publisher[r.Handles]; !ok {
			errs = append(errs, fmt.Errorf("%s handles %q, which no service publishes", s.Name, r.Handles))
		}
		if handled[r.Handles] {
			errs = append(errs, fmt.Errorf("%s reacts to %s twice: make it one reaction", s.Name, r.Handles))
		}
		handled[r.Handles] = true
	}
	return append(errs, s.validateReferences()...)
}

// validateReferences returns the faults of what refers to something else of the same service.
func (s Service) validateReferences() (errs []error) {
	does := map[string]bool{}
	for _, c := range s.Commands {
		does[c.Does] = true
	}
	for _, r := range s.Reacts {
		does[r.Does] = true
	}
	for _, c := range s.Calls {
		does[c.Does] = true
	}
	check := func(by, undoes string, requests []string) {
		if undoes != "" && !does[undoes] {
			errs = append(errs, fmt.Errorf("%s: %s undoes %q, which %s does not do", s.Name, by, undoes,
				s.Name))
		}
		for _, request := range requests {
			if _, ok := s.Call(request); !ok {
				errs = append(errs, fmt.Errorf("%s: %s requests %q, which is no call of %s", s.Name, by,
					request, s.Name))
			}
		}
	}
	for _, c := range s.Commands {
		check(c.Does, c.Undoes, c.Requests)
	}
	for _, r := range s.Reacts {
		check(r.Does, r.Undoes, r.Requests)
	}
	for _, c := range s.Calls {
		check(c.Does, c.Undoes, nil)
	}
	return errs
}

func (s Service) validateCommand(c Command) (errs []error) {
	switch {
	case c.After < 0:
		errs = append(errs, fmt.Errorf("%s: the deadline of %s is %s after now: it must not be negative",
			s.Name, c.Does, c.After))
	case c.After > 0 && c.Type == "":
		errs = append(errs, fmt.Errorf("%s: %s is a deadline without a type: nothing can set it", s.Name,
			c.Does))
	}
	return errs
}

// validateType returns the faults of a type of a command or a call, and adds it to the private
// ones.
func (s Service) validateType(does, privateType string, publisher,
	private map[string]string) (errs []error) {
	if other, twice := private[privateType]; twice {
		errs = append(errs, fmt.Errorf("%s: %s and %s have the same type %q", s.Name, other, does,
			privateType))
	}
	private[privateType] = does
	if !isType(privateType) {
		errs = append(errs, fmt.Errorf("%s: %s has the type %q, which is no event type", s.Name, does,
			privateType))
	}
	if other, ok := publisher[privateType]; ok {
		errs = append(errs, fmt.Errorf("%s: %s has the type %s, which is an event that %s publishes: "+
			"commands and calls need types of their own", s.Name, does, privateType, other))
	}
	return errs
}
