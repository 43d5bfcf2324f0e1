package export

import (
	"github.com/quadrille-go/quadrille/internal/schema"
	"github.com/quadrille-go/quadrille/topology"
)

// bindingVersion is the version of AsyncAPI's AMQP binding that its parser accepts.
const bindingVersion = "0.3.0"

// asyncAPI is an AsyncAPI 3 document of the whole choreography. A channel is a routing key of an
// exchange; an operation is a service that sends to it or receives from it.
func (s Source) asyncAPI() object {
	schemas := schema.All(s.Topology, s.Catalogue)
	channels, operations, messages := object{}, object{}, object{}
	for _, eventType := range s.Topology.Types() {
		owner, _ := s.Topology.Publisher(eventType)
		channels[eventType] = object{
			"address":  eventType,
			"messages": object{eventType: ref("components/messages/" + eventType)},
			"bindings": object{"amqp": object{"is": "routingKey", "bindingVersion": bindingVersion,
				"exchange": object{"name": topology.ExchangeOf(owner), "type": "topic", "durable": true,
					"autoDelete": false, "vhost": s.Vhost}}},
		}
		messages[eventType] = message(eventType, schemas[eventType])
		operations[owner+".send."+eventType] = operation("send", eventType,
			object{"deliveryMode": 2}, owner+" publishes "+eventType)
		for _, service := range s.Topology.Services {
			for _, r := range service.Reacts {
				if r.Handles == eventType {
					operations[service.Name+".receive."+eventType] = operation("receive", eventType,
						object{"ack": true}, service.Name+": "+r.Does)
				}
			}
		}
	}
	return object{
		"asyncapi":           "3.1.0",
		"id":                 s.Topology.SchemaPrefix() + s.Topology.Name,
		"info":               object{"title": s.Topology.Name, "version": s.Topology.Marker()},
		"defaultContentType": "application/json",
		"channels":           channels,
		"operations":         operations,
		"components":         object{"messages": messages},
	}
}

func ref(path string) object { return object{"$ref": "#/" + path} }

func operation(action, eventType string, binding object, summary string) object {
	binding["bindingVersion"] = bindingVersion
	return object{"action": action, "channel": ref("channels/" + eventType), "summary": summary,
		"messages": []object{ref("channels/" + eventType + "/messages/" + eventType)},
		"bindings": object{"amqp": binding}}
}

// message is an event in CloudEvents' binary mode: attributes are headers, the body is the payload.
func message(eventType string, payload *schema.Schema) object {
	text := object{"type": "string"}
	m := object{"name": eventType, "title": eventType, "contentType": "application/json",
		"bindings": object{"amqp": object{"messageType": eventType, "bindingVersion": bindingVersion}},
		"headers": object{"type": "object",
			"required": []string{"ce-specversion", "ce-id", "ce-source", "ce-type"},
			"properties": object{"ce-specversion": object{"const": "1.0"}, "ce-id": text,
				"ce-source": text, "ce-type": object{"const": eventType}, "ce-subject": text,
				"ce-time": text, "ce-dataschema": text, "ce-correlationid": text,
				"ce-causationid": text, "ce-partitionkey": text, "ce-sequence": text,
				"traceparent": text}}}
	if payload != nil {
		plain := *payload
		plain.Version, plain.ID = "", "" // the dialect is AsyncAPI's own, and $id would move references
		m["payload"] = &plain
	}
	return m
}
