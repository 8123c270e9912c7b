package orchestrator

import "context"

// A stage is one part of a deployment, done on all hosts at the same time. It
// is a barrier: the next stage begins when every host has passed this one.
type stage struct {
	step    Step
	do      func(context.Context, *hostRun) error
	once    func(context.Context) error // in place of do: for all hosts together
	first   bool                        // on the first host only
	through bool                        // to its end on every host, whatever happens elsewhere
	waits   bool                        // it mostly waits: on all hosts at the same time, however many
}

// prepare is a deployment up to the switch. Until it is through, blue serves
// untouched and everything that was made can be removed.
func (r *run) prepare() []stage {
	return []stage{
		{step: StepImage, do: r.keepImage},                  // an image that was uploaded once is not sent again
		{step: StepImage, once: r.packImages},               // what is to be uploaded is packed
		{step: StepImage, do: r.pinImage, first: true},      // ask one host, when the registry could not be asked from here
		{step: StepImage, do: r.pullImage},                  // renew the image: the same digest on every host
		{step: StepCode, do: r.fetchCode},                   // download the code at one commit
		{step: StepCreate, do: r.createGreen},               // create the green container in the free slot
		{step: StepInstall, do: r.install},                  // run the code installation inside green
		{step: StepInstall, do: r.installOnce, first: true}, // and what is to be run once, in the first green
		{step: StepInstall, do: r.restartGreen},             // then green begins with what was installed
		{step: StepTest, do: r.testGreen},                   // test green
		{step: StepSwitch, do: r.prepareProxy},              // both slots in the proxy's configuration, once for ever
		{step: StepSwitch, once: r.prepareBalancers},        // or in that of the load balancers
	}
}

// turn is the point of no return. From its end on green is not removed because
// something failed.
func (r *run) turn() []stage {
	return []stage{
		{step: StepSwitch, do: r.announce, through: true},        // write down what is about to serve, order blue's removal
		{step: StepSwitch, once: r.canary},                       // a share of the requests first, where the rollout asks for it
		{step: StepSwitch, once: r.switchToGreen, through: true}, // direct all new connections to green
	}
}

// settle is what follows the switch. When it fails, hosts go back to blue,
// which is still there.
func (r *run) settle() []stage {
	return []stage{
		{step: StepSwitch, once: r.verifyShared},            // a request through the public listener of every load balancer
		{step: StepSwitch, do: r.verify},                    // or of the host
		{step: StepTeardown, do: r.releaseBlue},             // the host removes blue by itself from here on
		{step: StepTeardown, do: r.watchGreen, waits: true}, // green is tested until blue is gone
	}
}
