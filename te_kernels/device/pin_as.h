// Where choices come from that a device's libraries are to go by (Device::PinChoices).
#pragma once

namespace te {

enum class PinAs {
  // The run's own: what a checkpoint that goes on was computed with. Comes before all that was
  // pinned so far, and stays in Device::TunedChoices, used or not.
  kOwn,
  // Of other runs on such a card, with this driver and these libraries. For what has no choice yet.
  kKnown,
  // Measured elsewhere: as kKnown, of another driver, too, and of a card with the same chip.
  kShipped,
};

// Which choices Device::TunedChoices writes.
enum class WhichChoices {
  kOfRun,  // what ran or was pinned as the run's own
  kFound,  // what a search of this context has found
};

}  // namespace te
