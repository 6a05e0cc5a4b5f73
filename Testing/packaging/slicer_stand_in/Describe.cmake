# Writes the extension's meta-information where the test reads it, in place of Slicer's description file.
file(WRITE "${CMAKE_BINARY_DIR}/description.txt" "")
foreach(_name HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  if(NOT EXTENSION_${_name})
    message(FATAL_ERROR "EXTENSION_${_name} is not set")
  endif()
  file(APPEND "${CMAKE_BINARY_DIR}/description.txt" "EXTENSION_${_name}=${EXTENSION_${_name}}\n")
endforeach()
