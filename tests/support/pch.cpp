#include "support/pch.hpp"
