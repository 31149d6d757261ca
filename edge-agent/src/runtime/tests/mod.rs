//! Containers, for real: needs root, busybox (Debian's `busybox-static`) and nothing else.
//!
//! Every test runs in a world of its own: this test binary starts itself again as a keeper in new network and mount
//! namespaces; the keeper starts it as the agent, which runs the case. The world's end takes links and mounts along;
//! the group that is named after it is killed and removed in any case.

mod bites;
mod cases;
mod escapes;
mod furnished;
mod net_cases;
mod oci;
mod other;
mod security;
mod survive;
mod users;
mod world;

use world::in_world;

macro_rules! worlds {
    ($($name:ident => $case:path),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                in_world(stringify!($name));
            }
        )*

        fn case(name: &str) -> Option<world::Case> {
            match name {
                $(stringify!($name) => Some(|world| Box::pin($case(world))),)*
                _ => None,
            }
        }
    };
}

worlds! {
    a_container_writes_and_ends => cases::writes_and_ends,
    two_containers_share_their_pod => cases::share_the_pod,
    exec_joins_and_reports => cases::exec,
    a_home_is_what_the_image_says => cases::homes,
    a_terminal_has_a_size => cases::terminal,
    stop_signals_arrive => cases::stop,
    memory_limits_kill_and_are_told => cases::out_of_memory,
    start_errors_are_in_runcs_words => cases::start_errors,
    mounts_are_as_asked => cases::mounts,
    what_writes_nothing_leaves_nothing => cases::writes_nothing,
    mounts_travel_as_asked => cases::propagation,
    nothing_is_left_after_many => cases::nothing_left,
    host_network_and_shared_processes => cases::other_namespaces,
    what_is_furnished_is_the_same => furnished::the_same,
    links_in_the_way_stay_inside => furnished::links,
    volumes_lie_on_etc_and_dev => furnished::over_etc_and_dev,
    volumes_lie_on_devices => furnished::over_devices,
    the_boards_groups_are_seen => furnished::groups_of_the_board,
    the_container_is_locked_in => security::locked_in,
    without_no_new_privileges_the_filter_holds => security::filter_without_nnp,
    privileged_is_privileged => security::privileged,
    hostile_images_are_refused => security::hostile_images,
    working_directories_stay_inside => escapes::working_directories,
    the_runtimes_program_is_not_written => escapes::own_program,
    nothing_is_inherited => escapes::inherited,
    a_leaked_directory_bites => bites::leaked_directory,
    a_runtime_that_is_written_bites => bites::own_program,
    a_link_in_the_place_of_null_bites => bites::masks,
    a_link_in_the_place_of_a_console_bites => bites::console,
    a_link_in_the_place_of_dev_bites => bites::dev,
    a_volume_on_proc_bites => bites::over_proc,
    what_is_inherited_bites => bites::inherited,
    users_past_what_there_is_bite => bites::far_users,
    masks_are_the_real_null => escapes::masks,
    sub_paths_are_not_raced => escapes::sub_path_race,
    profiles_of_the_node_hold => escapes::node_profiles,
    limits_change_while_it_runs => cases::resized,
    classes_weigh_what_they_ask_for => cases::classes,
    containers_are_as_specified => oci::as_specified,
    hooks_of_vendors_are_called => oci::hooks,
    a_killed_agent_loses_nothing => survive::killed_agent,
    an_end_after_the_greeting_is_seen => survive::ended_meanwhile,
    a_stopped_keeper_leaves_containers => survive::stopped_keeper,
    a_killed_helper_leaves_nothing => survive::killed_helper,
    an_exec_without_a_caller_ends => survive::exec_without_a_caller,
    hundreds_of_pipes_are_let_go_of => survive::many_fds,
    a_hangup_restarts_the_agent_only => survive::hangup,
    pods_have_users_of_their_own => users::own,
    all_capabilities_of_own_users_are_none => users::powerless,
    another_runtime_runs_containers => other::of_crun,
    v2_runs_containers => security::on_v2,
    udp_connections_follow_their_service => net_cases::udp,
    services_reach_their_pods => net_cases::services,
    node_ports_answer_at_the_boards_addresses => net_cases::node_ports,
    clients_keep_their_endpoint => net_cases::affinity,
    a_full_memory_of_clients_refuses_nobody => net_cases::full_memory,
}
