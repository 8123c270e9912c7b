// Package orchestrator is the engine: it observes the hosts of an app,
// decides purely what each of them needs, prints the decision or carries it
// out, and says what happened as events. It prints nothing itself.
package orchestrator
