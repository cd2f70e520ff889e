# What `cmake --install` puts where; the user larder is made by `make install`.
include(GNUInstallDirs)

set(LARDER_LIBEXEC "${CMAKE_INSTALL_LIBEXECDIR}/larder")
install(TARGETS larder RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
if(TARGET larder-engine)
  install(TARGETS larder-engine RUNTIME DESTINATION "${LARDER_LIBEXEC}")
endif()
if(TARGET cachefilesd)
  install(TARGETS cachefilesd RUNTIME DESTINATION "${CMAKE_INSTALL_SBINDIR}")
endif()
# mount(8) looks in /sbin only, so the link lies there whatever the prefix is (DESTDIR counts).
install(CODE "
  file(MAKE_DIRECTORY \"\$ENV{DESTDIR}/sbin\")
  file(CREATE_LINK \"${CMAKE_INSTALL_FULL_BINDIR}/larder\" \"\$ENV{DESTDIR}/sbin/mount.larder\" SYMBOLIC)")
foreach(unit larder.service larder-cachefilesd@.service)
  configure_file("${CMAKE_SOURCE_DIR}/packaging/${unit}.in" "${CMAKE_BINARY_DIR}/${unit}" @ONLY)
  install(FILES "${CMAKE_BINARY_DIR}/${unit}" DESTINATION lib/systemd/system)
endforeach()
foreach(page larder.8 cachefilesd.8 cachefilesd.conf.5)
  string(REGEX MATCH "[0-9]$" section "${page}")
  install(FILES "${CMAKE_SOURCE_DIR}/docs/man/${page}" DESTINATION "${CMAKE_INSTALL_MANDIR}/man${section}")
endforeach()
