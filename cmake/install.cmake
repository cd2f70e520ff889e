# What `cmake --install` puts where; the user larder is made by `make install`.
include(GNUInstallDirs)

set(LARDER_LIBEXEC "${CMAKE_INSTALL_LIBEXECDIR}/larder")
install(TARGETS larder RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
if(TARGET larder-engine)
  install(TARGETS larder-engine RUNTIME DESTINATION "${LARDER_LIBEXEC}")
endif()
# mount(8) looks in /sbin only, so the link lies there whatever the prefix is (DESTDIR counts).
install(CODE "
  file(MAKE_DIRECTORY \"\$ENV{DESTDIR}/sbin\")
  file(CREATE_LINK \"${CMAKE_INSTALL_FULL_BINDIR}/larder\" \"\$ENV{DESTDIR}/sbin/mount.larder\" SYMBOLIC)")
configure_file("${CMAKE_SOURCE_DIR}/packaging/larder.service.in"
               "${CMAKE_BINARY_DIR}/larder.service" @ONLY)
install(FILES "${CMAKE_BINARY_DIR}/larder.service" DESTINATION lib/systemd/system)
install(FILES "${CMAKE_SOURCE_DIR}/docs/man/larder.8" DESTINATION "${CMAKE_INSTALL_MANDIR}/man8")
