// What a process says before it ends because a page of a mapped file is not there any more.
#pragma once

namespace albireo {

// From now on SIGBUS at an address within a mapped file writes the file's name, the byte and what to do to stderr; then
// comes whatever would have come without. Once a process; where somebody handles SIGBUS already, he goes on after it.
void name_lost_pages();

}  // namespace albireo
