// What a process tells the service manager that started it.
#pragma once

#include <string_view>

namespace larder::os {

// A line for sd_notify(3) ("READY=1"), if there is somebody who wants to know. Threads: any, as
// long as nobody changes the environment. Never waits.
void notify_service_manager(std::string_view state);

}  // namespace larder::os
