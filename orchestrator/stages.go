package orchestrator

import "context"

// A stage is one part of a deployment, done on all hosts at the same time. It
// is a barrier: the next stage begins when every host has passed this one.
type stage struct {
	step  Step
	do    func(context.Context, *hostRun) error
	first bool // on the first host only
}

// prepare is a deployment up to the switch. Until it is through, blue serves
// untouched and everything that was made can be removed.
func (r *run) prepare() []stage {
	return []stage{
		{StepImage, r.pinImage, true},        // ask one host, when the registry could not be asked from here
		{StepImage, r.pullImage, false},      // renew the image: the same digest on every host
		{StepCode, r.fetchCode, false},       // download the code at one commit
		{StepCreate, r.createGreen, false},   // create the green container in the free slot
		{StepInstall, r.install, false},      // run the code installation inside green
		{StepInstall, r.installOnce, true},   // and what is to be run once, in the first green
		{StepInstall, r.restartGreen, false}, // then green begins with what was installed
		{StepTest, r.testGreen, false},       // test green
		{StepSwitch, r.prepareProxy, false},  // both slots in the proxy's configuration, once for ever
	}
}

// commit is the point of no return. It is not interrupted, and from here on
// green is not removed because something failed.
func (r *run) commit() stage {
	return stage{StepSwitch, r.switchToGreen, false} // direct all new connections to green
}

// settle is what follows the switch. When it fails, hosts go back to blue,
// which is still there.
func (r *run) settle() []stage {
	return []stage{
		{StepSwitch, r.verify, false},        // a request through the public listener
		{StepTeardown, r.releaseBlue, false}, // the host removes blue by itself from here on
		{StepTeardown, r.watchGreen, false},  // green is tested until blue is gone
	}
}
