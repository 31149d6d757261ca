//! The firmware of the Raspberry Pi Pico W: a leaf board whose light a ConfigMap switches and whose processor's warmth is told.
//!
//! In: name, join token and Wi-Fi as they were at the build; the radio; flash. Out: a node of the hub.
//! Never: an answer to anybody but its hub; a stop: what cannot go on starts anew.
#![no_std]
#![no_main]

extern crate alloc;

mod board;

use board::Pico;
use core::{mem::MaybeUninit, panic::PanicInfo};
use cyw43::aligned_bytes;
use cyw43_pio::{DEFAULT_CLOCK_DIVIDER, PioSpi};
use embassy_executor::Spawner;
use embassy_futures::join::join4;
use embassy_net::{Config, StackResources};
use embassy_rp::{
    adc, bind_interrupts, dma,
    clocks::RoscRng,
    flash::{Blocking, Flash},
    gpio::{Level, Output},
    peripherals::{DMA_CH0, FLASH, PIO0},
    pio::{self, Pio},
};
use embassy_time::{Duration, Timer};
use embedded_alloc::LlffHeap;
use limpet_leaf::{FLASH_BYTES, Facts, Settings, Store};
use static_cell::StaticCell;

const FLASH_SIZE: usize = 2 * 1024 * 1024;
/// The last 128 KB, which memory.x leaves free.
const RECORDS_AT: u32 = (FLASH_SIZE - 128 * 1024) as u32;
const _: () = assert!(FLASH_BYTES <= 128 * 1024);
/// One connection's buffers (29 KB), messages, and room for a join.
const HEAP_BYTES: usize = 112 * 1024;

const NAME: Option<&str> = option_env!("LEAF_NAME");
const TOKEN: Option<&str> = option_env!("LEAF_TOKEN");
const WIFI: Option<&str> = option_env!("LEAF_WIFI");
const WIFI_PASSWORD: Option<&str> = option_env!("LEAF_WIFI_PASSWORD");

#[global_allocator]
static HEAP: LlffHeap = LlffHeap::empty();

bind_interrupts!(struct Interrupts {
    PIO0_IRQ_0 => pio::InterruptHandler<PIO0>;
    DMA_IRQ_0 => dma::InterruptHandler<DMA_CH0>;
    ADC_IRQ_FIFO => adc::InterruptHandler;
});

/// Nobody is there to read a panic: start anew, after a pause that keeps the flash from wearing out.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    cortex_m::asm::delay(125_000_000 * 5);
    cortex_m::peripheral::SCB::sys_reset()
}

#[embassy_executor::main]
async fn main(_spawner: Spawner) {
    static MEMORY: StaticCell<[MaybeUninit<u8>; HEAP_BYTES]> = StaticCell::new();
    let memory = MEMORY.init([MaybeUninit::uninit(); HEAP_BYTES]);
    // SAFETY: the array is this heap's alone, for ever, and nothing was allocated before.
    unsafe { HEAP.init(memory.as_mut_ptr() as usize, HEAP_BYTES) }

    let p = embassy_rp::init(Default::default());
    let mut flash = Flash::<FLASH, Blocking, FLASH_SIZE>::new_blocking(p.FLASH);
    let mut serial = [0; 8];
    let _ = flash.blocking_unique_id(&mut serial);
    let machine_id: alloc::string::String = serial.iter().map(|b| alloc::format!("{b:02x}")).collect();

    let firmware = aligned_bytes!(concat!(env!("OUT_DIR"), "/43439A0.bin"));
    let country = include_bytes!(concat!(env!("OUT_DIR"), "/43439A0_clm.bin"));
    let nvram = aligned_bytes!(concat!(env!("OUT_DIR"), "/nvram_rp2040.bin"));
    assert!(!firmware.is_empty(), "built without LEAF_RADIO_DIR: no radio");

    let mut pio = Pio::new(p.PIO0, Interrupts);
    let dma = dma::Channel::new(p.DMA_CH0, Interrupts);
    let (power, select) = (Output::new(p.PIN_23, Level::Low), Output::new(p.PIN_25, Level::High));
    let spi = PioSpi::new(&mut pio.common, pio.sm0, DEFAULT_CLOCK_DIVIDER, pio.irq0, select, p.PIN_24, p.PIN_29, dma);
    static RADIO: StaticCell<cyw43::State> = StaticCell::new();
    let (device, mut control, radio) = cyw43::new(RADIO.init(cyw43::State::new()), power, spi, firmware, nvram).await;

    let mut rng = RoscRng;
    static RESOURCES: StaticCell<StackResources<4>> = StaticCell::new();
    let resources = RESOURCES.init(StackResources::new());
    let (net, mut runner) = embassy_net::new(device, Config::dhcpv4(Default::default()), resources, rng.next_u64());

    let facts = Facts {
        name: NAME.unwrap_or("pico-w").into(),
        board: "Raspberry Pi Pico W".into(),
        architecture: "thumbv6m".into(),
        firmware: env!("CARGO_PKG_VERSION").into(),
        machine_id,
        memory_bytes: 264 * 1024,
        address: alloc::string::String::new(),
    };
    let warmth = adc::Channel::new_temp_sensor(p.ADC_TEMP_SENSOR);
    let pico = Pico::new(adc::Adc::new_blocking(p.ADC, Default::default()), warmth);
    let light = pico.light();
    let settings = Settings { facts, token: TOKEN.unwrap_or_default() };
    let leaf = limpet_leaf::run(net, rng, Store::new(flash, RECORDS_AT), pico, settings);
    let wifi = async {
        control.init(country).await;
        control.set_power_management(cyw43::PowerManagementMode::PowerSave).await;
        let options = || match WIFI_PASSWORD {
            Some(password) => cyw43::JoinOptions::new(password.as_bytes()),
            None => cyw43::JoinOptions::new_open(),
        };
        while control.join(WIFI.unwrap_or_default(), options()).await.is_err() {
            Timer::after(Duration::from_secs(5)).await;
        }
        loop {
            let on = light.next().await;
            control.gpio_set(0, on).await;
        }
    };
    join4(radio.run(), runner.run(), wifi, leaf).await;
}
